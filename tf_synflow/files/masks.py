"""Masks in files: .npz archives of boolean arrays that numpy alone can read."""

import contextlib
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from tf_synflow import frameworks
from tf_synflow.checks import COMPRESSIONS
from tf_synflow.files.whole import written_whole
from tf_synflow.masks.types import Masks

# No network of keras.applications has more weights than this. Masks compress a
# thousandfold, so the size of a file does not say how much memory its masks will take.
LIMIT = 512 * 2**20

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

_END = struct.Struct("<4s6xH10x")  # a zip archive's last record, without a comment

# The errors that numpy and zipfile raise for damaged archives. A flipped bit may point
# to a place before the beginning of the file, ask for a password, or name an unknown
# compression.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    KeyError,
    OSError,
    MemoryError,  # a header asks for an array that no machine can hold
    RuntimeError,  # a member seems encrypted, or compressed in an unknown way
)


def save_masks(path: str | os.PathLike[str], masks: Mapping[str, np.ndarray]) -> None:
    """Writes masks to a file, whole or not at all.

    Args:
      path: The file, usually named `.npz`: a compressed archive of boolean arrays by
        weight name, which `numpy.load` reads.
      masks: Name to boolean array.

    Raises:
      TypeError: `masks` is not a mapping.
      ValueError: `masks` is empty, an array is not boolean, or a name ends in `.npy`.
      OSError: The file cannot be written.
    """
    if not isinstance(masks, Mapping):
        raise TypeError(
            "masks must be a mapping of weight names to boolean arrays, got "
            f"{type(masks).__name__}"
        )
    if not masks:
        raise ValueError("masks is empty: there is nothing to save")
    for name, mask in masks.items():
        if np.asarray(mask).dtype != bool:
            raise ValueError(
                f"the mask of {name!r} must be boolean, got {np.asarray(mask).dtype}"
            )
        if name.endswith(".npy"):
            raise ValueError(
                f"the name {name!r} ends in .npy, which numpy cuts off: choose another"
            )
    # Not np.savez: it takes some names, such as "file", as its own arguments.
    with (
        written_whole(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, mask in masks.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(mask))


def load_masks(
    path: str | os.PathLike[str], like: Any = None, limit: int = LIMIT
) -> Masks:
    """Reads masks that `save_masks` wrote.

    The sizes that the file declares are checked before any mask is read, so that a
    small file cannot fill the memory.

    Args:
      path: The file.
      like: The model that the masks are for. Names and shapes must be those of its
        weights, and `limit` is ignored. Defaults to None: any names and shapes are
        accepted.
      limit: How many bytes the masks may take in memory, one byte a weight. Defaults
        to 512 MiB.

    Returns:
      Name to boolean array, in the order in which they were saved.

    Raises:
      FileNotFoundError: There is no such file.
      TypeError: `like` is no Keras model.
      ValueError: The file is damaged or is no file of masks, the masks are larger than
        `limit`, or they do not fit the model.
    """
    shapes = None if like is None else _prunable_shapes(like)
    with open(path, "rb") as file:
        with _explained(path):
            found = _checked_shapes(file)
        if shapes is None:
            _check_size(path, sum(map(math.prod, found.values())), limit)
        else:
            _check_fit(path, found, shapes)
        file.seek(0)
        with _explained(path), np.load(file, allow_pickle=False) as stored:
            masks = {name: stored[name] for name in stored.files}
            wrong = [n for n, m in masks.items() if m.view("u1").max(initial=0) > 1]
            if wrong:
                raise ValueError(f"{wrong[0]!r} has bytes that are neither 0 nor 1")
    return masks


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns any error in reading into one that says that the file is damaged."""
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(
            f"{str(path)!r} is no file of masks, or a damaged one ({error}); expected "
            "an .npz that tf_synflow.save_masks wrote"
        ) from error


def _prunable_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    network = frameworks.read(model)
    return {name: tuple(network.weights[name].shape) for name in network.maskable}


def _check_size(path: str | os.PathLike[str], size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(
            f"the masks in {str(path)!r} would take {size:,} bytes of memory, and the "
            f"limit is {limit:,}. Nothing was read. If you trust the file, say which "
            "model it is for (like=model) or allow more (limit=)"
        )


def _check_fit(
    path: str | os.PathLike[str],
    found: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    for name, shape in found.items():
        if name not in shapes:
            raise ValueError(
                f"{str(path)!r} has a mask of {name!r}, but the model has no such "
                f"weight that can be pruned; it has {list(shapes)}"
            )
        if shape != shapes[name]:
            raise ValueError(
                f"the mask of {name!r} in {str(path)!r} has shape {shape}, but the "
                f"model's weight has shape {shapes[name]}"
            )


def _checked_shapes(file: BinaryIO) -> dict[str, tuple[int, ...]]:
    """Name to shape, from the headers alone; refuses other files than masks.

    For each mask, its header and the archive's directory must declare the same size.
    Then reading takes no more memory: numpy and zipfile stop at the declared size.
    """
    _check_archive(file)
    shapes = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.compress_type not in COMPRESSIONS:
                raise ValueError(f"{info.filename!r} is compressed in an unknown way")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                if version not in _HEADERS:
                    raise ValueError(f"{info.filename!r} has no header of masks")
                shape, _, dtype = _HEADERS[version](member)
                if dtype.kind != "b":
                    raise ValueError(f"{info.filename!r} is not boolean but {dtype}")
                if member.tell() + math.prod(shape) != info.file_size:
                    raise ValueError(
                        f"{info.filename!r} declares the shape {shape} and has "
                        f"{info.file_size} bytes"
                    )
            shapes[info.filename.removesuffix(".npy")] = shape
    if not shapes:
        raise ValueError("it is empty")
    return shapes


def _check_archive(file: BinaryIO) -> None:
    """Refuses a file that is no zip archive, or lists fewer members than it has."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no zip archive")
    with zipfile.ZipFile(file) as archive:
        listed = len(set(archive.namelist()))
    file.seek(-_END.size, os.SEEK_END)
    signature, count = _END.unpack(file.read())
    file.seek(0)
    # A flipped bit can make one entry swallow the next, or give it another's name.
    if signature == b"PK\5\6" and count not in (listed, 0xFFFF):
        raise ValueError(f"it should have {count} members and lists {listed}")
