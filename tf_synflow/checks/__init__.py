"""Checks arguments, defines errors, and shortens the errors of other libraries."""

import re
import zipfile
from collections.abc import Iterable

import numpy as np

# TensorFlow puts the name of an operation and its place in a graph around a message.
_AROUND = re.compile(
    r"^(\{\{.*?\}\} *)+|^\(\d+\) [A-Z_]+: +|( *\[Op:\w*\])?( name: *)?$"
    r"|Error in user-defined function passed to .*?: (Iterator::\S+: )?"
)

_NO_WORDS = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|\d+ root error|\[\["
)

# If making a graph fails, the error follows after the lines of code that led to it.
_AFTER_CODE = re.compile(r"in user code:.*?\n *\w+Error: *", re.DOTALL)

# The methods by which the files in a zip archive may be compressed: numpy and Keras
# write these. Other methods can make 100 MB from a few kilobytes in one step.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class LayerCollapseWarning(UserWarning):
    """A layer has lost all its prunable weights, or never had any flow through it."""


class DenseKernelsWarning(UserWarning):
    """Kernels stay dense, because nothing prunes them."""


class LayerCollapseError(ValueError):
    """Raised in place of a `LayerCollapseWarning` if `on_collapse` is "raise"."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters; "" if none.

    TensorFlow's errors are long: for them, it is the first line that says what
    happened.
    """
    text = _AFTER_CODE.sub("", str(error).strip(), count=1)
    lines = (line.strip() for line in text.splitlines())
    said = [_AROUND.sub("", line) for line in lines if not _NO_WORDS.match(line)]
    return next((line[:300].rstrip(" :") for line in said if line), "")


def check_choice(what: str, value: object, choices: Iterable[object]) -> None:
    """Refuses a name that is not among the choices.

    Raises:
      ValueError: `value` is not among the choices; the error lists them.
    """
    choices = tuple(choices)
    if value not in choices:
        names = ", ".join(map(repr, choices))
        raise ValueError(f"unknown {what} {value!r}; there are {names}")


def check_count(what: str, value: object, lowest: int = 1) -> None:
    """Checks that a value is a whole number, and at least `lowest`.

    Raises:
      TypeError: `value` is no whole number.
      ValueError: `value` is below `lowest`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} must be a whole number, got {value!r}")
    if value < lowest:
        raise ValueError(f"{what} must be at least {lowest}, got {value}")
