"""Checks of arguments, errors of our own, and what those of other libraries say."""

import re
import zipfile
from collections.abc import Iterable

import numpy as np

# What TensorFlow puts around its words: where in a graph they were said, and by whom.
_AROUND = re.compile(
    r"^(\{\{.*?\}\} *)+|^\(\d+\) [A-Z_]+: +|( *\[Op:\w*\])?( name: *)?$"
    r"|Error in user-defined function passed to .*?: (Iterator::\S+: )?"
)

_NO_WORDS = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File \"|\d+ root error|\[\["
)

# An error while a graph was made comes after all the lines of code that led to it.
_AFTER_CODE = re.compile(r"in user code:.*?\n *\w+Error: *", re.DOTALL)

# How a zip archive of ours may be compressed, as numpy and Keras write it. The other
# ways can make 100 MB of a few kilobytes in one step.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class LayerCollapseWarning(UserWarning):
    """A layer has lost all of its prunable weights, or no flow ever passed it."""


class DenseKernelsWarning(UserWarning):
    """Kernels stay dense, because nothing prunes them."""


class LayerCollapseError(ValueError):
    """The same, where `on_collapse="raise"` was asked for."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, 300 characters of it at most; or nothing.

    From TensorFlow's errors, which are long, it is the first that says what happened.
    """
    text = _AFTER_CODE.sub("", str(error).strip(), count=1)
    lines = (line.strip() for line in text.splitlines())
    said = [_AROUND.sub("", line) for line in lines if not _NO_WORDS.match(line)]
    return next((line[:300].rstrip(" :") for line in said if line), "")


def check_choice(what: str, value: object, choices: Iterable[object]) -> None:
    """Refuses a name that is not among the choices.

    Raises:
      ValueError: With the choices there are.
    """
    choices = tuple(choices)
    if value not in choices:
        names = ", ".join(map(repr, choices))
        raise ValueError(f"unknown {what} {value!r}; there are {names}")


def check_count(what: str, value: object, lowest: int = 1) -> None:
    """Refuses what is no whole number from `lowest` on.

    Raises:
      TypeError: It is no whole number.
      ValueError: It is below `lowest`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} must be a whole number, got {value!r}")
    if value < lowest:
        raise ValueError(f"{what} must be at least {lowest}, got {value}")
