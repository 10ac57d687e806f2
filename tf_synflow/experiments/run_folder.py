"""The folder of a run: who may write to it, and what a killed run has left there."""

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_synflow.experiments.lock import LOCK, locked
from tf_synflow.experiments.results import read_results
from tf_synflow.files.masks import load_masks, save_masks
from tf_synflow.files.models import load_model
from tf_synflow.files.whole import (
    digest,
    file_digest,
    read_json,
    write_json,
    written_whole,
)
from tf_synflow.masks.types import Masks

_FLAGS = "flags.json"

_NETWORK = "pruned.keras"

_PRUNED = "pruned.json"

_DIGESTED = ("masks.npz", "history.csv")  # results.json has their digests

_VERSIONS = "versions.json"

_LEVEL = re.compile(r"level_\d+")

# The temporary folders that `written_whole` leaves if the process is killed.
_ASIDE = re.compile(
    r"\.(results\.json|flags\.json|versions\.json|pruned\.json|masks\.npz|history\.csv|"
    r"pruned\.keras|model\.keras|best\.keras|small\.keras|run\.png)\.\w{8}"
)


class RunFolder:
    """The files that a run has left, and where the run continues.

    Attributes:
      workdir: The folder, from which all processes of a run read.
      written: The folder that this process writes to: `workdir`, or a temporary folder.
      results: The content of `results.json` if the run is finished; else None.
      run: An identifier of the run. It depends on all flags that change what the run
        computes.
    """

    def __init__(self, workdir: Path, written: Path, flags: Mapping[str, Any]):
        """Made by `run_folder`."""
        self.workdir = workdir
        self.written = written
        finished = (workdir / "results.json").is_file()
        self.results = read_results(workdir / "results.json") if finished else None
        # If a run was begun without a flag, its value is None.
        given = {k: v for k, v in flags.items() if v is not None}
        for name in _elsewhere(flags):
            given.pop(name, None)
        self.run = digest(given)

    def check(self) -> None:
        """Checks the files that an earlier process has left, before they are used.

        Raises:
          ValueError: A file is damaged, or belongs to another run.
        """
        if self.results is None:
            self.masks()
            return
        for name, expected in self.results.get("files", {}).items():
            path = self.workdir / name
            if path.is_file() and file_digest(path) != expected:
                raise ValueError(
                    f"{str(path)!r} is damaged, or was edited: its digest is not the "
                    "one in results.json. Restore it from a copy, or delete it: the "
                    "results are whole"
                )

    def digests(self) -> dict[str, str]:
        """The digests of the small files, by name, for `results.json`."""
        paths = (self.written / name for name in _DIGESTED)
        return {path.name: file_digest(path) for path in paths if path.is_file()}

    def note_versions(self, versions: Mapping[str, str]) -> list[dict[str, str]]:
        """Records the versions of the packages that this process computes with.

        Returns:
          Different versions that parts of this run were computed with before, the
          earliest first.
        """
        path = self.workdir / _VERSIONS
        noted = read_json(path).get("versions") if path.is_file() else []
        if not isinstance(noted, list):
            raise ValueError(
                f"{str(path)!r} is damaged: expected a list of versions, got "
                f"{noted!r}. Delete it to go on; the versions before are then not "
                "recorded"
            )
        if versions not in noted:
            write_json(self.written / _VERSIONS, {"versions": [*noted, versions]})
        return [before for before in noted if before != versions]

    def masks(self) -> Masks | None:
        """The masks, if they were computed already.

        Raises:
          ValueError: The file of masks, or the record beside it, is damaged.
        """
        path = self.workdir / "masks.npz"
        if not path.is_file():
            return None
        masks = load_masks(path)
        if _digest_of(masks) != self._record()["masks"]:
            raise ValueError(
                f"{str(path)!r} holds other masks than this run has made. Delete it to "
                "compute them again"
            )
        return masks

    def keep_masks(self, masks: Masks, seconds: float) -> None:
        """Writes the masks, and how long they took, so that they are made only once."""
        record = {"run": self.run, "seconds": seconds, "masks": _digest_of(masks)}
        if (self.written / _NETWORK).is_file():
            record["network"] = file_digest(self.written / _NETWORK)
        write_json(self.written / _PRUNED, record)
        save_masks(self.written / "masks.npz", masks)

    def keep_network(self, network: Any) -> None:
        """Writes a network that pruning has trained; call this before `keep_masks`."""
        with written_whole(self.written / _NETWORK) as aside:
            network.save(aside)

    def network(self) -> Any:
        """The network that `keep_network` wrote.

        Raises:
          FileNotFoundError: The file is missing.
          ValueError: The file is damaged, or holds another network.
        """
        path, again = self.workdir / _NETWORK, "masks.npz to have both made again"
        if not path.is_file():
            raise FileNotFoundError(f"{str(path)!r} is missing. Delete {again}")
        if file_digest(path) != self._record().get("network"):
            raise ValueError(f"{str(path)!r} is damaged. Delete it and {again}")
        return load_model(path)

    def prune_seconds(self) -> float:
        """How many seconds the masks took."""
        return self._record()["seconds"]

    def _record(self) -> dict[str, Any]:
        """The record about the masks, from the file beside them."""
        path = self.workdir / _PRUNED
        if not path.is_file() and (self.written / _PRUNED).is_file():
            path = self.written / _PRUNED  # of a process that is not the chief
        again = "Delete masks.npz beside it to have the masks made again"
        if not path.is_file():
            raise FileNotFoundError(f"{str(path)!r} is missing. {again}")
        try:
            record = read_json(path)
        except ValueError as error:
            raise ValueError(f"{error}. {again}") from error
        if record.get("run") != self.run:
            raise ValueError(f"{str(path)!r} belongs to another run. {again}")
        return record

    def tidy(self) -> None:
        """Deletes what only an unfinished run needs."""
        for folder in _folders(self.workdir):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        # The flags are deleted last: while they exist, tidying is not finished.
        for name in (_PRUNED, _NETWORK, _VERSIONS, _FLAGS):
            (self.workdir / name).unlink(missing_ok=True)


@contextlib.contextmanager
def run_folder(
    workdir: Path, flags: Mapping[str, Any], chief: bool = True
) -> Iterator[RunFolder]:
    """Opens the folder of a run, for this process alone.

    Args:
      workdir: The folder; it is created if it does not exist.
      flags: Flags of the run. They are kept in the folder. If the folder holds a run
        already, the flags are compared with those that this run was begun with.
      chief: Whether this process writes to the folder. Other processes write to a
        temporary folder. Defaults to True.

    Yields:
      The `RunFolder`. On leaving without an error, the files that only an unfinished
      run needs are deleted. If a run was killed after it had written its results, these
      files are deleted on entering. Nothing else in a finished run is changed.

    Raises:
      FileExistsError: The folder holds something else, or a run with other flags.
      BlockingIOError: Another process is at work in the folder.
      ValueError: A small file of the run is damaged.
    """
    if not chief:
        with tempfile.TemporaryDirectory() as elsewhere:
            yield RunFolder(workdir, Path(elsewhere), flags)
        return
    _check_contents(workdir)
    new = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(workdir):
            yield from _opened(workdir, flags)
    finally:
        if new:
            with contextlib.suppress(OSError):  # the folder is not empty
                workdir.rmdir()


def _opened(workdir: Path, flags: Mapping[str, Any]) -> Iterator[RunFolder]:
    """What `run_folder` does while it holds the lock."""
    _check_contents(workdir)
    folder = RunFolder(workdir, workdir, flags)
    _same_run(workdir, flags, folder.results)
    folder.check()
    if folder.results is not None:
        if _is_untidy(workdir, flags):
            _delete_asides(workdir)
            folder.tidy()
        yield folder
        return
    _delete_asides(workdir)
    try:
        yield folder
        folder.tidy()
    finally:
        # Here the run failed before it had written anything else.
        if {path.name for path in workdir.iterdir()} <= {LOCK, _FLAGS, _VERSIONS}:
            for name in (_VERSIONS, _FLAGS):
                (workdir / name).unlink(missing_ok=True)


def _is_untidy(workdir: Path, flags: Mapping[str, Any]) -> bool:
    """Whether a run was killed between its results and the end of `RunFolder.tidy`.

    Then the file of the run's own flags is still there. A file of other flags is
    ignored.
    """
    try:
        return not _changed(read_json(workdir / _FLAGS), flags)
    except (OSError, ValueError):
        return False


def _delete_asides(workdir: Path) -> None:
    for place in _folders(workdir):
        for left in place.iterdir():
            if _ASIDE.fullmatch(left.name):
                shutil.rmtree(left, ignore_errors=True)


def _folders(workdir: Path) -> list[Path]:
    """The folders that a run writes to."""
    levels = (p for p in workdir.iterdir() if _LEVEL.fullmatch(p.name) and p.is_dir())
    return [workdir, *levels]


def _check_contents(workdir: Path) -> None:
    """Refuses a folder that holds anything but a run."""
    if not workdir.exists():
        return
    if not workdir.is_dir():
        raise FileExistsError(
            f"{str(workdir)!r} is not a folder; choose another --workdir"
        )
    names = {path.name for path in workdir.iterdir() if not _ASIDE.fullmatch(path.name)}
    if names - {LOCK} and not names & {_FLAGS, "results.json"}:
        raise FileExistsError(
            f"{str(workdir)!r} holds files, but no run of this library; choose another "
            "--workdir"
        )


def _elsewhere(flags: Mapping[str, Any]) -> set[str]:
    """Flags for where a run reads and writes, which do not change what it computes."""
    # One exception: another folder may hold another archive of Tiny ImageNet, or a part
    # of it.
    tiny = flags.get("dataset") == "tiny_imagenet"
    return {"workdir", "download"} | (set() if tiny else {"data_dir"})


def _same_run(
    workdir: Path, flags: Mapping[str, Any], results: Mapping[str, Any] | None
) -> None:
    """Refuses a run with other flags; writes down the flags of a new run."""
    elsewhere = _elsewhere(flags)
    own = {k: v for k, v in flags.items() if k not in elsewhere}
    path = workdir / _FLAGS
    if results is not None:
        before = results.get("flags")
    elif path.is_file():
        try:
            before = read_json(path)
        except ValueError as error:
            raise ValueError(
                f"{error}. Choose another --workdir, or delete the folder to begin "
                "the run again"
            ) from error
    else:
        write_json(path, own)
        return
    if not isinstance(before, dict):
        raise FileExistsError(f"{str(workdir)!r} holds no run of this library")
    other = _changed(before, flags)
    if other:
        raise FileExistsError(
            f"the run in {str(workdir)!r} was begun with {', '.join(other)}. Give it "
            "the same flags to continue it, or choose another --workdir"
        )


def _digest_of(masks: Masks) -> str:
    """The SHA-256 of masks: of their names, shapes and bits, in their order."""
    found = hashlib.sha256()
    for name, mask in masks.items():
        found.update(repr((name, mask.shape)).encode() + mask.tobytes())
    return found.hexdigest()


def _changed(before: Mapping[str, Any], flags: Mapping[str, Any]) -> list[str]:
    """The differences between the flags of an earlier run and `flags`, as text."""
    return [
        f"{k}={before.get(k)!r}, not {flags.get(k)!r}"
        for k in sorted({*before, *flags} - _elsewhere(flags))
        if before.get(k) != flags.get(k)
    ]
