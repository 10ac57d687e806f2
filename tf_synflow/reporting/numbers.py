"""Formats numbers for people."""


def percent(fraction: float | None) -> str:
    """A fraction, in percent with four digits; "?" if it is not known."""
    return "?" if fraction is None else f"{100 * fraction:.4g} %"


def count(number: int | None) -> str:
    """A count, in millions or billions if it is large; "?" if it is not known."""
    if number is None:
        return "?"
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if number >= 10 * size or (number >= size and unit == "G"):
            return f"{number / size:.4g} {unit}"
    return f"{number:,}"
