"""Masks in files: .npz archives of boolean arrays that numpy alone can read."""

import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from tf_synflow.files import written_whole
from tf_synflow.masks import Masks

_END = struct.Struct("<4s6xH10x")  # a zip archive's last record, without a comment

# What numpy and zipfile raise on damaged archives: a flipped bit may ask for a place
# before the file's beginning, a password, or a compression that nobody knows.
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
      TypeError: `masks` is no mapping.
      ValueError: It is empty, or an array is not boolean.
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
            raise ValueError(f"numpy cannot tell {name!r} from the name of its member")
    # Not np.savez: it takes some names, such as "file", for arguments of its own.
    with (
        written_whole(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, mask in masks.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(mask))


def load_masks(path: str | os.PathLike[str]) -> Masks:
    """Reads masks that `save_masks` wrote.

    Args:
      path: The file.

    Returns:
      Name to boolean array, in the order in which they were saved.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged or no file of masks.
    """
    try:
        with open(path, "rb") as file:
            _check_archive(file)
            with np.load(file, allow_pickle=False) as stored:
                masks = {name: stored[name] for name in stored.files}
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except _DAMAGE as error:
        raise ValueError(
            f"{str(path)!r} is no file of masks, or a damaged one ({error}); expected "
            "an .npz that tf_synflow.save_masks wrote"
        ) from error
    # What is no array of numpy's in the archive is given as bytes.
    wrong = [
        name
        for name, mask in masks.items()
        if not isinstance(mask, np.ndarray) or mask.dtype.kind != "b"
    ]
    if wrong or not masks:
        raise ValueError(
            f"{str(path)!r} is no file of masks: expected boolean arrays, "
            + (f"but {wrong[:3]} are not" if wrong else "but it is empty")
        )
    return masks


def _check_archive(file: BinaryIO) -> None:
    """Refuses what is no zip archive, or lists fewer members than it has."""
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
