"""What flags hold: lists of numbers, and the names of files to write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def numbers(name: str, words: Sequence[str], kind: type) -> tuple[Any, ...]:
    """The numbers in a list.

    Args:
      name: Name of the flag.
      words: Values of the flag.
      kind: `int` or `float`.

    Raises:
      ValueError: A word is no number of this kind.
    """
    try:
        return tuple(kind(word) for word in words)
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(
            f"{name}={','.join(words)}: expected {what}, separated by commas"
        ) from error


def check_folder(name: str, output: str) -> None:
    """Checks that the folder of output files exists, before long work begins.

    Args:
      name: Name of the flag.
      output: Value of the flag.

    Raises:
      FileNotFoundError: The folder does not exist.
    """
    if not Path(output).absolute().parent.is_dir():
        raise FileNotFoundError(
            f"{name}={output}: the folder {str(Path(output).parent)!r} does not exist; "
            "create it first"
        )
