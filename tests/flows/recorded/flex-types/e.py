def f(a, b: int, c: str, d: list, e: float = 2.5, g: bool = False, h=None):
    return str([[type(x).__name__, x] for x in (a,b,c,d,e,g,h)])
