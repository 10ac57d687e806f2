"""Writes files whole or not at all, and notices damage to JSON files."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path to write to, and renames it to `path` at the end.

    The caller may write a file or a directory to the temporary path. This path lies in
    a temporary folder beside `path`, on the same file system, so that the rename is
    atomic. After an exception, `path` is as it was, and the temporary folder is
    deleted. The content is on the disk before the rename, so that a power failure does
    not leave an empty file either.

    Args:
      path: Where the finished file is to be. Its folder must exist.

    Yields:
      The path to write to. It has the same name and ending as `path`, in another
      folder.

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
        _to_disk(aside / path.name)
        os.replace(aside / path.name, path)
        _to_disk(path.parent, below=False)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_disk(path: Path, below: bool = True) -> None:
    """Waits until a file, or a folder with all that is in it, is on the disk."""
    if below and path.is_dir():
        for inside in path.iterdir():
            _to_disk(inside)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems cannot do it for a folder
            raise
    finally:
        os.close(descriptor)


def write_csv(
    path: str | os.PathLike[str], table: Sequence[Mapping[str, object]]
) -> None:
    """Writes a table with a header, whole or not at all.

    A table without rows is not written.

    Args:
      path: The file.
      table: Rows with the same keys, which are the columns.
    """
    if table:
        with written_whole(path) as aside, open(aside, "w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)


def digest(content: Any) -> str:
    """The SHA-256 of what JSON can hold, whatever the order of keys."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a dictionary and, under the key `digest`, the digest of the rest.

    Args:
      path: The file, written whole or not at all.
      content: A dictionary that JSON can hold, without a key `digest`.
    """
    # The digest is of the content as JSON gives it back: with lists for tuples, and
    # strings for keys.
    plain = json.loads(json.dumps(content))
    with written_whole(path) as aside:
        text = json.dumps({**plain, "digest": digest(plain)}, indent=2)
        aside.write_text(text + "\n", "utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a dictionary that `write_json` wrote, and removes the key `digest`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged: it holds no dictionary, or its digest is wrong.
    """
    content, sealed = read_either_json(path)
    if not sealed:
        raise ValueError(
            f"{str(path)!r} is damaged, or an earlier version wrote it: the key "
            "'digest' is missing"
        )
    return content


def read_either_json(path: Path) -> tuple[dict[str, Any], bool]:
    """Reads a dictionary that may have been written without a digest.

    Returns:
      The same dictionary as `read_json`, and whether the file had a digest.

    Raises:
      FileNotFoundError, ValueError: See `read_json`.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} is damaged: expected a JSON object, got "
            f"{type(content).__name__}"
        )
    if "digest" not in content:
        return content, False
    expected = content.pop("digest")
    if digest(content) != expected:
        raise ValueError(
            f"{str(path)!r} is damaged, or was edited: its content does not match its "
            "digest"
        )
    return content, True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8, whole or not at all.

    Args:
      path: The file. Its folder must exist.
      text: The text.
    """
    with written_whole(path) as aside:
        aside.write_text(text, "utf-8")
