from typing import List
from promptflow.core import tool, log_metric
@tool
def total(grades: List[str], truths: List[str]):
    print("aggregating", grades, truths)
    log_metric("accuracy", round(grades.count("Correct")/len(grades), 2))
    return grades
