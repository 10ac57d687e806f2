"""Files that are written whole or not at all."""

import contextlib
import csv
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# What numpy and Keras write. The others can make 100 MB of a few kilobytes in one step.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to, and renames it to `path` if all went well.

    What is written aside may be a file or a directory. It lies in a temporary folder
    beside `path`, on the same file system, so that the rename is atomic. An exception
    leaves `path` as it was and nothing else behind.

    Args:
      path: Where the finished file is to be. Its folder must exist.

    Yields:
      The path to write to; it has the name of `path`, so endings are kept.

    Raises:
      FileNotFoundError: The folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not "
            "exist; create it first"
        )
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield aside / path.name
        os.replace(aside / path.name, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_csv(
    path: str | os.PathLike[str], table: Sequence[Mapping[str, object]]
) -> None:
    """Writes a table with a header, whole or not at all; nothing if it has no rows.

    Args:
      path: The file.
      table: Rows with the same keys, which are the columns.
    """
    if table:
        with written_whole(path) as aside, open(aside, "w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
