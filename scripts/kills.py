"""Kills a run at random moments, goes on, and compares it with an undisturbed one.

python scripts/kills.py --folder=runs/kills

Each kill is a SIGKILL, which nothing can catch. The first falls while the run prunes,
the last while it saves an epoch, and those between anywhere in what is left to train.
"""

import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags
from plain_errors import in_one_line

import tf_synflow
from tf_synflow._compat import keras

_FOLDER = flags.DEFINE_string("folder", None, "For the two runs.", required=True)
_KILLS = flags.DEFINE_integer("kills", 5, "How many.", lower_bound=2)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

TRAIN = Path(__file__).with_name("train.py")
EPOCHS = 8
FLAGS = [
    "--model=resnet20", "--dataset=digits", "--ratio=10",
    "--batch_size=32", f"--epochs={EPOCHS}", "--weight_decay=1e-4",
]  # fmt: skip


def _start(workdir: Path) -> subprocess.Popen:
    command = [sys.executable, str(TRAIN), *FLAGS, f"--workdir={workdir}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet)


def _epochs_done(workdir: Path) -> int:
    found = (workdir / "checkpoints").glob("epoch_*")
    return max((int(path.name.removeprefix("epoch_")) for path in found), default=0)


def _saving(workdir: Path) -> bool:
    """Whether an epoch is being written down, aside and not yet under its name."""
    return any((workdir / "checkpoints").glob(".epoch_*"))


def _moment(workdir: Path) -> str:
    """Where a run was when it was killed."""
    if not (workdir / "masks.npz").exists():
        return "while it pruned"
    done = f"with {_epochs_done(workdir)} of {EPOCHS} epochs done"
    return f"{done}{', while it saved the next' if _saving(workdir) else ''}"


class _Times(NamedTuple):
    """Seconds of an undisturbed run."""

    start: float
    pruning: float
    training: float


def _undisturbed(workdir: Path) -> _Times:
    """Carries out a run, and looks when it came to what."""
    begin, process = time.monotonic(), _start(workdir)
    marks = []
    for file in ("flags.json", "masks.npz"):
        while not (workdir / file).exists() and process.poll() is None:
            time.sleep(0.01)
        marks.append(time.monotonic() - begin)
    if process.wait():
        sys.exit("kills.py: the undisturbed run failed")
    start, pruned = marks
    return _Times(start, pruned - start, time.monotonic() - begin - pruned)


def _kill(workdir: Path, reached: Callable[[], bool], seconds: float = 0.0) -> None:
    """Goes on with the run, and kills it so long after something is reached."""
    process, end = _start(workdir), math.inf
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit("kills.py: the run ended before it could be killed")
        if end == math.inf and reached():
            end = time.monotonic() + seconds
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"killed {_moment(workdir)}", flush=True)


@in_one_line
def main(argv: list[str]) -> None:
    """Runs both, and compares weights and masks byte by byte."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    folder = Path(_FOLDER.value)
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    times = _undisturbed(undisturbed)
    draw = random.Random(_SEED.value)
    begun = killed / "flags.json"
    _kill(killed, begun.exists, draw.uniform(0.1, 0.7) * times.pruning)
    for more in range(_KILLS.value - 2, 0, -1):
        left = 1 - _epochs_done(killed) / EPOCHS
        pruning = 0 if (killed / "masks.npz").exists() else times.pruning
        # Spread over what is left, so that the run is not over before the last kill.
        part = draw.uniform(0, 2 / (more + 2)) * left * times.training
        _kill(killed, begun.exists, times.start + pruning + part)
    _kill(killed, lambda: _saving(killed))
    if _start(killed).wait():
        sys.exit("kills.py: the killed run could not be finished")
    runs = (undisturbed, killed)
    weights = [
        [
            w.numpy().tobytes()
            for w in keras.models.load_model(run / "model.keras").weights
        ]
        for run in runs
    ]
    masks = [tf_synflow.load_masks(run / "masks.npz") for run in runs]
    same = weights[0] == weights[1] and all(
        np.array_equal(masks[0][name], masks[1][name]) for name in masks[0]
    )
    print(
        f"{'holds' if same else 'FAILS'}: weights and masks of both are the same bytes"
    )
    sys.exit(not same)


if __name__ == "__main__":
    app.run(main)
