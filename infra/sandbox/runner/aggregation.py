"""Runs a flow's aggregation over its lines, and gathers the metrics."""

import base64
import json
import pickle

from .line import dumps, error_of, is_dag, why_failed
from .records import of_nodes


def aggregate(executor, message, order):
    """Returns the result of the aggregation: `metrics` in JSON, and why it failed if it did.

    * `order`: of each line that succeeded `inputs`, and `kept` as the line's process has put it.
    """
    import traceback

    try:
        kept = [kept_of(executor, each) for each in order["kept"]]
        nodes = []
        if is_dag(executor):
            metrics, wrong, nodes = aggregate_nodes(executor, message, order["inputs"], kept)
        else:
            metrics, wrong = aggregate_outputs(executor, kept)
        return {"metrics": dumps(metrics) if metrics else None, "wrong": wrong, "nodes": nodes}
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return {"wrong": error_of(error)}


def kept_of(executor, each):
    """Returns the output of a line's process or, of a line of an earlier run, that of its nodes
    there."""
    if isinstance(each, str):
        return pickle.loads(base64.b64decode(each))
    if not is_dag(executor):
        return json.loads(each["text"])
    from promptflow._utils.execution_utils import extract_aggregation_inputs

    return extract_aggregation_inputs(executor._flow, each["nodes"])


def aggregate_nodes(executor, message, inputs, kept):
    from promptflow._utils.execution_utils import apply_default_value_for_input, get_aggregation_inputs_properties
    from promptflow._utils.utils import transpose
    from promptflow.executor.flow_validator import FlowValidator

    flow = executor._flow
    lines = [FlowValidator.ensure_flow_inputs_type(flow=flow, inputs=apply_default_value_for_input(flow.inputs, line)) for line in inputs]
    answer = executor.exec_aggregation(
        transpose(lines, keys=list(flow.inputs)), transpose(kept, keys=get_aggregation_inputs_properties(flow)), run_id=message["run"]
    )
    wrong = None
    for node, info in answer.node_run_infos.items():
        if info.error and not wrong:
            failure = why_failed(info.error, message["folder"])
            wrong = {**failure, "message": f"the aggregation node {node!r} failed: {failure['message']}"}
    return answer.metrics, wrong, of_nodes(answer.node_run_infos)


def aggregate_outputs(executor, kept):
    """Calls the flow's `__aggregate__`; promptflow's own call keeps to itself what it raises."""
    from promptflow.contracts.types import AttrDict

    failures = []

    def told(function):
        def call(**arguments):
            try:
                return function(**arguments)
            except BaseException as error:
                failures.append(error)
                raise

        call.__name__ = getattr(function, "__name__", "__aggregate__")
        return call

    executor._aggr_func = told(executor._aggr_func)
    answer = executor.exec_aggregation(None, [AttrDict(each) if isinstance(each, dict) else each for each in kept])
    wrong = None
    if failures:
        import traceback

        traceback.print_exception(failures[0])
        failure = error_of(failures[0])
        wrong = {**failure, "message": f"the flow's __aggregate__ failed: {failure['message']}"}
    return answer.metrics, wrong
