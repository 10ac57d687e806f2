"""Looks at a saved model before Keras reads it: is the file whole, how large is it?"""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from tf_synflow.checks import COMPRESSIONS

# Bytes of memory that reading a small file may take. A large file may take RATIO times
# its size. Keras does not compress: an archive that Keras wrote is as large as the
# model.
UNPACKED = 512 * 2**20

RATIO = 4

# Parsed JSON takes up to twenty times the size of its text in memory.
_LARGEST_CONFIG = 32 * 2**20


class UntrustedFileError(ValueError):
    """A file names code that could do harm, or unpacks to too many bytes."""


def allowance(size: int) -> int:
    """How many bytes a file may take in memory.

    Args:
      size: Size of the file in bytes.
    """
    return max(UNPACKED, RATIO * size)


def check_archive(path: Path, bounded: bool) -> None:
    """Checks that a file is a whole zip archive.

    Keras would read any other file as HDF5, which is not safe.

    Args:
      path: The `.keras` file.
      bounded: Whether to refuse archives that unpack to too many bytes as well.

    Raises:
      zipfile.BadZipFile: The file is no whole archive.
      UntrustedFileError: The archive unpacks to too many bytes, or is compressed in
        an unusual way.
    """
    if not (path.is_file() and zipfile.is_zipfile(path)):
        raise zipfile.BadZipFile("a .keras file is a zip archive, and this is none")
    with zipfile.ZipFile(path) as archive:
        if bounded:
            allowed = allowance(path.stat().st_size)
            size = sum(info.file_size for info in archive.infolist())
            if size > allowed:
                raise UntrustedFileError(
                    f"it would unpack to {size:,} bytes; at most {allowed:,} are "
                    "allowed"
                )
            if {info.compress_type for info in archive.infolist()} - set(COMPRESSIONS):
                raise UntrustedFileError("it is compressed in an unusual way")
        # Keras reads the weights in pieces, and does not verify the checksum.
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")


def check_weights(file: Any, allowed: int) -> None:
    """Refuses an HDF5 file whose arrays lie in other files, or are too large together.

    Args:
      file: The open file, an `h5py.File`.
      allowed: How many bytes the arrays may take.

    Raises:
      UntrustedFileError: An array lies in another file, or the arrays are too large.
    """
    size, waiting, seen = 0, [file], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UntrustedFileError(f"{name!r} lies in another file")
            if not isinstance(link, h5py.HardLink):
                continue  # a soft link; its target is checked in its own place
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


def parsed(config: str | bytes, longest: int = 0) -> Any:
    """Parses the JSON configuration of a model.

    Args:
      config: The text.
      longest: How many bytes the text may have. At least 32 MiB are always allowed.

    Raises:
      UntrustedFileError: The text is longer.
    """
    longest = max(longest, _LARGEST_CONFIG)
    if len(config) > longest:
        raise UntrustedFileError(
            f"its configuration has {len(config):,} bytes; at most {longest:,} are "
            "allowed"
        )
    return json.loads(config)


def keras_version(path: Path) -> str:
    """The version of Keras that wrote a file; "" where the file does not say.

    Args:
      path: A `.keras` or `.h5` file, or the folder of a SavedModel.
    """
    try:
        if path.is_dir():
            return ""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = parsed(archive.read("metadata.json"))["keras_version"]
        else:
            with h5py.File(path) as file:
                found = file.attrs["keras_version"]
    # A damaged file fails in many ways. The function that reads it next reports the
    # error.
    except Exception:
        return ""
    return found.decode() if isinstance(found, bytes) else str(found)
