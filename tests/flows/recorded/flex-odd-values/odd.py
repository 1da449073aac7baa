
import dataclasses, datetime, decimal
@dataclasses.dataclass
class P:
    b: int
    a: list

def main(k: str):
    return odd(k)
def odd(k: str):
    def deep(n):
        v = 1
        for _ in range(n): v = [v]
        return v
    def gen():
        yield "a"; yield "b"
    return {"nan": lambda: float("nan"), "inf": lambda: [float("inf"), -float("inf")], "sur": lambda: "x\ud800y", "big": lambda: 10**40,
      "deep": lambda: deep(200), "deep2": lambda: deep(5000), "dc": lambda: P(1,[2]), "dcs": lambda: {"x":[P(1,[2])]}, "set": lambda: {1}, "tuple": lambda: (1,2), "intkey": lambda: {2:1,1:2}, "date": lambda: datetime.date(2020,1,1),
      "dec": lambda: decimal.Decimal("1.5"), "bytes": lambda: b"x", "none": lambda: None, "gen": gen, "order": lambda: {"z":1,"a":2,"m":{"y":1,"b":2}}, "f": lambda: 1e-5, "uni": lambda: "é\u2028😀"}[k]()
