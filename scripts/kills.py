"""Kills a run at random moments, goes on, and compares it with an undisturbed one.

python scripts/kills.py --folder=runs/kills

Each kill is a SIGKILL, which nothing can catch. The moments are drawn from the whole
of what an undisturbed run takes: while it prunes, in the middle of an epoch, while it
saves.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags

import tf_synflow
from tf_synflow._compat import keras

_FOLDER = flags.DEFINE_string("folder", None, "For the two runs.", required=True)
_KILLS = flags.DEFINE_integer("kills", 5, "How many.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

TRAIN = Path(__file__).with_name("train.py")
FLAGS = [
    "--model=resnet20", "--dataset=digits", "--ratio=10", "--iterations=20",
    "--batch_size=32", "--epochs=4", "--weight_decay=1e-4",
]  # fmt: skip


def _start(workdir: Path) -> subprocess.Popen:
    command = [sys.executable, str(TRAIN), *FLAGS, f"--workdir={workdir}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet)


def _moment(workdir: Path) -> str:
    """Where a run was when it was killed."""
    if not (workdir / "masks.npz").exists():
        return "before its masks were written"
    found = sorted((workdir / "checkpoints").glob("epoch_*"))
    saving = [p.name for p in workdir.rglob(".*.*") if p.is_dir()]
    done = f"with {found[-1].name.removeprefix('epoch_')} epochs done" if found else ""
    return f"{done or 'in the first epoch'}{', while it saved' if saving else ''}"


def main(argv: list[str]) -> None:
    """Runs both, and compares weights and masks byte by byte."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    folder = Path(_FOLDER.value)
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    begin = time.monotonic()
    if _start(undisturbed).wait():
        sys.exit("kills.py: the undisturbed run failed")
    whole = time.monotonic() - begin
    draw = random.Random(_SEED.value)
    for _ in range(_KILLS.value):
        process = _start(killed)
        seconds = draw.uniform(0.2, 0.8) * whole
        try:
            process.wait(seconds)
            print(f"finished before {seconds:.1f} s")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed after {seconds:.1f} s, {_moment(killed)}", flush=True)
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
