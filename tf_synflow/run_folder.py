"""The folder of a run: who may write to it, and what a killed run has left there."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_synflow.files import written_whole
from tf_synflow.mask_files import load_masks, save_masks
from tf_synflow.masks import Masks

# Where a run reads and writes does not change what it computes.
_ELSEWHERE = ("workdir", "data_dir", "download")

_LOCK = ".lock"
_FLAGS = "flags.json"


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
        self.results: dict[str, Any] | None = None
        if (workdir / "results.json").is_file():
            text = (workdir / "results.json").read_text("utf-8")
            self.results = json.loads(text)

    def masks(self) -> Masks | None:
        """The masks, if they were computed already."""
        path = self.workdir / "masks.npz"
        return load_masks(path) if path.is_file() else None

    def keep_masks(self, masks: Masks, seconds: float) -> None:
        """Writes the masks, and how long they took, so that they are not made again."""
        _write_json(self.written / "pruned.json", {"seconds": seconds})
        save_masks(self.written / "masks.npz", masks)

    def prune_seconds(self) -> float:
        """How long the masks took."""
        path = self.workdir / "pruned.json"
        if not path.is_file():  # of a process that is not the chief
            path = self.written / "pruned.json"
        return json.loads(path.read_text("utf-8"))["seconds"]

    def tidy(self) -> None:
        """Deletes what only an unfinished run needs."""
        for path in [self.workdir, *self.workdir.glob("level_*")]:
            shutil.rmtree(path / "checkpoints", ignore_errors=True)
        for name in ("pruned.json", _FLAGS):
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
      deleted.

    Raises:
      FileExistsError: It holds something else, or a run with other flags.
      BlockingIOError: Another process is at work in it.
    """
    if not chief:
        with tempfile.TemporaryDirectory() as elsewhere:
            yield RunFolder(workdir, Path(elsewhere))
        return
    new = not workdir.exists()
    if not new and not workdir.is_dir():
        raise FileExistsError(
            f"{str(workdir)!r} is no folder; choose another --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / _LOCK, "w") as lock:
        try:
            # The system lets go of it however this process ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another process is at work in {str(workdir)!r}; wait for it, or "
                "choose another --workdir"
            ) from error
        try:
            _same_run(workdir, flags)
            for left in workdir.rglob(".*.*"):
                if left.is_dir():  # what was being written when it was killed
                    shutil.rmtree(left, ignore_errors=True)
            folder = RunFolder(workdir, workdir)
            yield folder
            folder.tidy()
        finally:
            os.unlink(workdir / _LOCK)
            if new and not (workdir / "masks.npz").exists():
                _discard(workdir)


def _same_run(workdir: Path, flags: Mapping[str, Any]) -> None:
    """Refuses a folder of anything but this run; notes the flags in a new one."""
    own = {k: v for k, v in flags.items() if k not in _ELSEWHERE}
    for name in ("results.json", _FLAGS):
        if not (workdir / name).is_file():
            continue
        before = json.loads((workdir / name).read_text("utf-8"))
        before = before["flags"] if name == "results.json" else before
        other = [
            f"{k}={before.get(k)!r}, not {own.get(k)!r}"
            for k in sorted({*before, *own} - set(_ELSEWHERE))
            if before.get(k) != own.get(k)
        ]
        if other:
            raise FileExistsError(
                f"the run in {str(workdir)!r} was begun with {', '.join(other)}. Give "
                "it the same flags to go on with it, or choose another --workdir"
            )
        return
    if any(path.name != _LOCK for path in workdir.iterdir()):
        raise FileExistsError(
            f"{str(workdir)!r} holds files, but no run of this library; choose another "
            "--workdir"
        )
    _write_json(workdir / _FLAGS, own)


def _discard(workdir: Path) -> None:
    """Deletes a folder that was made for nothing: the run failed before its masks."""
    with contextlib.suppress(OSError):
        (workdir / _FLAGS).unlink(missing_ok=True)
        workdir.rmdir()


def _write_json(path: Path, content: Any) -> None:
    with written_whole(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
