"""Looks at a saved model before Keras reads it: is the file whole, how large is it?"""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from tf_synflow.checks import COMPRESSIONS

# Bytes that reading a small file may take; a large one may take RATIO times its size.
# Keras does not compress: an archive that it wrote is as large as the model.
UNPACKED = 512 * 2**20

RATIO = 4

# JSON takes up to twenty times its size once it is read.
_LARGEST_CONFIG = 32 * 2**20


class UntrustedFileError(ValueError):
    """A file names what could do harm, or unpacks to too much."""


def allowance(size: int) -> int:
    """How many bytes a file may take in memory.

    Args:
      size: Its own size in bytes.
    """
    return max(UNPACKED, RATIO * size)


def check_archive(path: Path, bounded: bool) -> None:
    """Refuses what is no whole zip archive: Keras would read it as HDF5, unsafely.

    Args:
      path: The `.keras` file.
      bounded: Whether to refuse what unpacks to too much as well.

    Raises:
      zipfile.BadZipFile: It is no whole archive.
      UntrustedFileError: It unpacks to too much.
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
        # Keras reads the weights in pieces, past the checksum.
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")


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


def parsed(config: str | bytes, longest: int = 0) -> Any:
    """What JSON makes of the configuration of a model.

    Args:
      config: The text.
      longest: How many bytes it may have, if that is more than 32 MiB.

    Raises:
      UntrustedFileError: It is longer.
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
    # A damaged file fails in many ways. Whoever reads it next says how.
    except Exception:
        return ""
    return found.decode() if isinstance(found, bytes) else str(found)
