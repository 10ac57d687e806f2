"""The folder of a run: who may write to it, and what a killed run has left there."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_synflow.files import written_whole
from tf_synflow.mask_files import load_masks, save_masks
from tf_synflow.masks import Masks
from tf_synflow.model_files import load_model

_LOCK = ".tf_synflow.lock"
_FLAGS = "flags.json"
_NETWORK = "pruned.keras"
_VERSIONS = "versions.json"
_LEVEL = re.compile(r"level_\d+")
# What `written_whole` leaves of a file of ours if the process is killed.
_ASIDE = re.compile(
    r"\.(flags\.json|versions\.json|pruned\.json|masks\.npz|history\.csv|pruned\.keras|model\.keras|small\.keras|run\.png|"
    r"results\.json)\.\w{8}"
)


class RunFolder:
    """What a run has left behind, and where it goes on.

    Attributes:
      workdir: The folder, from which all processes of a run read.
      written: The folder that this process writes to: `workdir`, or one that is thrown
        away.
      results: What `results.json` holds, if the run is finished; else None.
    """

    def __init__(self, workdir: Path, written: Path):
        """Made by `run_folder`."""
        self.workdir = workdir
        self.written = written
        finished = (workdir / "results.json").is_file()
        self.results = read_json(workdir / "results.json") if finished else None

    def note_versions(self, versions: Mapping[str, str]) -> list[dict[str, str]]:
        """Notes the versions of the packages that this process computes with.

        Returns:
          Those that parts of this run were computed with before, the first ones first,
          if they were others.
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
            _write_json(self.written / _VERSIONS, {"versions": [*noted, versions]})
        return [before for before in noted if before != versions]

    def masks(self) -> Masks | None:
        """The masks, if they were computed already."""
        path = self.workdir / "masks.npz"
        return load_masks(path) if path.is_file() else None

    def keep_masks(self, masks: Masks, seconds: float) -> None:
        """Writes the masks, and how long they took, so that they are not made again."""
        _write_json(self.written / "pruned.json", {"seconds": seconds})
        save_masks(self.written / "masks.npz", masks)

    def keep_network(self, network: Any) -> None:
        """Writes a network that was trained while it was pruned; before its masks."""
        with written_whole(self.written / _NETWORK) as aside:
            network.save(aside)

    def network(self) -> Any:
        """The network that `keep_network` wrote."""
        return load_model(self.workdir / _NETWORK)

    def prune_seconds(self) -> float:
        """How long the masks took."""
        path = self.workdir / "pruned.json"
        if not path.is_file():  # of a process that is not the chief
            path = self.written / "pruned.json"
        return read_json(path)["seconds"]

    def tidy(self) -> None:
        """Deletes what only an unfinished run needs."""
        for folder in _folders(self.workdir):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        # The flags last: as long as they are there, it is not done.
        for name in ("pruned.json", _NETWORK, _VERSIONS, _FLAGS):
            (self.workdir / name).unlink(missing_ok=True)


@contextlib.contextmanager
def run_folder(
    workdir: Path, flags: Mapping[str, Any], chief: bool = True
) -> Iterator[RunFolder]:
    """Opens the folder of a run, for this process alone.

    Args:
      workdir: The folder; made if need be.
      flags: Of the run. They are kept in the folder, and compared with those that a run
        there was begun with.
      chief: Whether this process writes to it. One that does not, writes to a temporary
        folder. Defaults to True.

    Yields:
      The `RunFolder`. On leaving without an error, what only an unfinished run needs is
      deleted; at once, if a run was killed after it had written its results. In a
      finished run nothing else is touched.

    Raises:
      FileExistsError: It holds something else, or a run with other flags.
      BlockingIOError: Another process is at work in it.
    """
    if not chief:
        with tempfile.TemporaryDirectory() as elsewhere:
            yield RunFolder(workdir, Path(elsewhere))
        return
    _check_contents(workdir)
    new = not workdir.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(workdir):
            yield from _opened(workdir, flags)
    finally:
        if new:
            with contextlib.suppress(OSError):  # there is something in it
                workdir.rmdir()


def _opened(workdir: Path, flags: Mapping[str, Any]) -> Iterator[RunFolder]:
    """What `run_folder` does while it holds the lock."""
    _check_contents(workdir)
    _same_run(workdir, flags)
    folder = RunFolder(workdir, workdir)
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
        # It failed before there was anything.
        if {path.name for path in workdir.iterdir()} <= {_LOCK, _FLAGS, _VERSIONS}:
            for name in (_VERSIONS, _FLAGS):
                (workdir / name).unlink(missing_ok=True)


def _is_untidy(workdir: Path, flags: Mapping[str, Any]) -> bool:
    """Whether a run was killed between its results and the end of `RunFolder.tidy`.

    Then its own flags are still there. Others than its own are none of our business.
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


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Holds the lock of a folder, which the system lets go however a process ends."""
    path = workdir / _LOCK
    while True:
        lock = open(path, "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise BlockingIOError(
                f"another process is at work in {str(workdir)!r}; wait for it, or "
                "choose another --workdir"
            ) from error
        # Between opening and locking, the one before may have deleted it.
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            break
        lock.close()
    with lock:
        try:
            yield
        finally:
            path.unlink()


def _folders(workdir: Path) -> list[Path]:
    """The folders in which a run writes."""
    levels = (p for p in workdir.iterdir() if _LEVEL.fullmatch(p.name) and p.is_dir())
    return [workdir, *levels]


def _check_contents(workdir: Path) -> None:
    """Refuses a folder that holds anything but a run."""
    if not workdir.exists():
        return
    if not workdir.is_dir():
        raise FileExistsError(
            f"{str(workdir)!r} is no folder; choose another --workdir"
        )
    names = {path.name for path in workdir.iterdir() if not _ASIDE.fullmatch(path.name)}
    if names - {_LOCK} and not names & {_FLAGS, "results.json"}:
        raise FileExistsError(
            f"{str(workdir)!r} holds files, but no run of this library; choose another "
            "--workdir"
        )


def _same_run(workdir: Path, flags: Mapping[str, Any]) -> None:
    """Refuses a run with other flags; notes the flags of a new one."""
    if (workdir / "results.json").is_file():
        before = read_json(workdir / "results.json").get("flags")
    elif (workdir / _FLAGS).is_file():
        before = read_json(workdir / _FLAGS)
    else:
        elsewhere = _elsewhere(flags)
        own = {k: v for k, v in flags.items() if k not in elsewhere}
        _write_json(workdir / _FLAGS, own)
        return
    if not isinstance(before, dict):
        raise FileExistsError(f"{str(workdir)!r} holds no run of this library")
    other = _changed(before, flags)
    if other:
        raise FileExistsError(
            f"the run in {str(workdir)!r} was begun with {', '.join(other)}. Give it "
            "the same flags to go on with it, or choose another --workdir"
        )


def _elsewhere(flags: Mapping[str, Any]) -> set[str]:
    """The flags that do not change what a run computes: where it reads and writes."""
    # But a folder may hold another archive of Tiny ImageNet, or a part of it.
    tiny = flags.get("dataset") == "tiny_imagenet"
    return {"workdir", "download"} | (set() if tiny else {"data_dir"})


def _changed(before: Mapping[str, Any], flags: Mapping[str, Any]) -> list[str]:
    """The flags that another run was begun with, in words."""
    return [
        f"{k}={before.get(k)!r}, not {flags.get(k)!r}"
        for k in sorted({*before, *flags} - _elsewhere(flags))
        if before.get(k) != flags.get(k)
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Reads a dictionary.

    Raises:
      ValueError: It holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} is not of a run: expected a JSON object")
    return content


def _write_json(path: Path, content: Any) -> None:
    with written_whole(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
