"""Limits the size of a saved model's variables, before they take memory."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_synflow.checks.saved_models import UntrustedFileError


@contextlib.contextmanager
def bounded_variables(allowed: int) -> Iterator[None]:
    """Raises an error if variables made in the context are too large together.

    Args:
      allowed: How many bytes the variables may take.

    Raises:
      UntrustedFileError: The next variable would make them larger than `allowed`.
    """
    size = 0

    def counted(make: Any, **arguments: Any) -> Any:
        nonlocal size
        shape, kind = arguments.get("shape"), arguments.get("dtype")
        if shape is not None and kind is not None:
            sides = [side or 0 for side in tf.TensorShape(shape)]  # None for a table
            size += math.prod(sides) * tf.as_dtype(kind).size
        if size > allowed:
            raise UntrustedFileError(
                f"its variables would take {size:,} bytes of memory; at most "
                f"{allowed:,} are allowed"
            )
        return make(**arguments)

    with tf.variable_creator_scope(counted):
        yield
