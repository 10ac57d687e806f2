"""Bounds what a saved model may unpack to, before memory is taken for it."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import h5py
import tensorflow as tf

# Bytes that reading a small file may take; a large one may take RATIO times its size.
# Keras does not compress: an archive that it wrote is as large as the model.
UNPACKED = 512 * 2**20

RATIO = 4


class UntrustedFileError(ValueError):
    """A file names what could do harm, or unpacks to too much."""


def allowance(size: int) -> int:
    """How many bytes a file may take in memory.

    Args:
      size: Its own size in bytes.
    """
    return max(UNPACKED, RATIO * size)


def check_weights(file: Any, allowed: int) -> None:
    """Refuses an open HDF5 file whose arrays are elsewhere, or too large together.

    Args:
      file: Of h5py's `File` class.
      allowed: How many bytes the arrays may take.

    Raises:
      UntrustedFileError: See above.
    """
    size, waiting, seen = 0, [file], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UntrustedFileError(f"{name!r} lies in another file")
            if not isinstance(link, h5py.HardLink):
                continue  # a name for what is looked at in its own place, or nowhere
            part = group[name]
            if part.id in seen:
                continue
            seen.add(part.id)
            if isinstance(part, h5py.Group):
                waiting.append(part)
            elif isinstance(part, h5py.Dataset):
                if part.external or part.is_virtual:
                    raise UntrustedFileError(f"{name!r} lies in another file")
                size += part.nbytes
    if size > allowed:
        raise UntrustedFileError(
            f"its weights would take {size:,} bytes of memory; at most {allowed:,} are "
            "allowed"
        )


@contextlib.contextmanager
def bounded_variables(allowed: int) -> Iterator[None]:
    """Refuses to make variables that are too large together.

    Args:
      allowed: How many bytes they may take.

    Raises:
      UntrustedFileError: Before a variable is made that would take more.
    """
    size = 0

    def counted(make: Any, **arguments: Any) -> Any:
        nonlocal size
        shape, kind = arguments.get("shape"), arguments.get("dtype")
        if shape is not None and kind is not None:
            sides = [side or 0 for side in tf.TensorShape(shape)]  # a table has none
            size += math.prod(sides) * tf.as_dtype(kind).size
        if size > allowed:
            raise UntrustedFileError(
                f"its variables would take {size:,} bytes of memory; at most "
                f"{allowed:,} are allowed"
            )
        return make(**arguments)

    with tf.variable_creator_scope(counted):
        yield
