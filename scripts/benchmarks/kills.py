"""Kills runs at random moments, continues them, and compares them with whole ones.

python scripts/benchmarks/kills.py --folder=runs/kills

Each kill is a SIGKILL, which nothing can catch. Two of three fall at a random time,
the third while a file or a checkpoint is being written. Files, masks, weights and
history have to be those of the undisturbed run, bit for bit. It takes about 20 minutes
on a quiet machine with two cores; --cases=rounds --kills=3 is one case in short.

quickstart: ResNet-20, as in the README, with few images. The other cases train a small
network with BatchNormalization and Dropout. levels: two levels of magnitude pruning
with rewinding. rounds: filters in two rounds. shrink: the network without its dead
channels. replicas: two logical CPU devices.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

import tf_synflow
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.experiments.checkpoints import read_history
from tf_synflow.keras2.imports import keras

EPOCHS = 3
_BRIEF = ["--dataset=digits", f"--epochs={EPOCHS}", "--train_images=512"]
_SMALL = ["--model=small", *_BRIEF, "--batch_size=64", "--weight_decay=1e-4"]
CASES = {
    "quickstart": ["--flagfile=configs/quickstart.flags", *_BRIEF],
    "levels": [*_SMALL, "--ratio=10", "--criterion=magnitude", "--levels=2"],
    "rounds": [
        *_SMALL, "--ratio=0.5", "--criterion=loss_preservation",
        "--granularity=filter", "--rounds=2",
    ],
    "shrink": [*_SMALL, "--ratio=20", "--shrink"],
    "replicas": [*_SMALL, "--ratio=10", "--distribute=mirrored"],
}  # fmt: skip

_FOLDER = flags.DEFINE_string("folder", None, "A new folder for the runs.")
_CASES = flags.DEFINE_multi_enum("cases", list(CASES), list(CASES), "What to run.")
_KILLS = flags.DEFINE_integer("kills", 12, "Kills of each case.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds the moments.")

ROOT = Path(__file__).parents[2]
# Runs scripts/train.py with one more network, "small", and with as many logical CPU
# devices as its first argument says.
PROGRAM = """
import ctypes, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # when kills.py itself is ended
from tf_synflow import models
import tensorflow as tf
from tf_synflow.keras2.imports import keras
devices, sys.argv = int(sys.argv[1]), sys.argv[2:]
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * devices,
)
layers = keras.layers
def small(input_shape, classes, variant=None):
    inputs = keras.Input(input_shape)
    x = layers.AveragePooling2D(2, name="pool")(inputs)
    x = layers.Conv2D(8, 3, use_bias=False, name="conv1")(x)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.Conv2D(16, 3, 2, use_bias=False, name="conv2")(x)
    x = layers.ReLU(name="relu2")(layers.BatchNormalization(name="bn2")(x))
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.2, rng_type="stateful", name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, name="fc")(x))
models.MODELS["small"] = small
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class _Undisturbed(NamedTuple):
    """What an undisturbed run took.

    Attributes:
      start: Seconds until the run began to work.
      work: Seconds from then to the end.
      epochs: Number of epochs, of all levels together.
    """

    start: float
    work: float
    epochs: int


def _start(case: str, workdir: Path) -> subprocess.Popen:
    devices = "2" if case == "replicas" else "1"
    command = [sys.executable, "-c", PROGRAM, devices, "scripts/train.py"]
    command += [*CASES[case], f"--workdir={workdir}"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with open(workdir.with_suffix(".log"), "a") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdout=log,
            stderr=log,
        )


def _folders(workdir: Path) -> Iterator[Path]:
    """Yields the folders of a run: its own, those of its levels, and of checkpoints."""
    for folder in (workdir, *workdir.glob("level_*")):
        yield folder
        yield folder / "checkpoints"


def _written(workdir: Path) -> str | None:
    """Gives the name of a file that is being written, or None.

    Such a file has a temporary name until it is whole.
    """
    for folder in _folders(workdir):
        for path in folder.glob(".*.????????"):
            return path.name[1:-9]
    return None


def _epochs(workdir: Path) -> int:
    """Counts the epochs that are done, of all levels together."""
    files = (folder / "history.csv" for folder in _folders(workdir))
    return sum(
        max(len(file.read_text().splitlines()) - 1, 0)
        for file in files
        if file.exists()
    )


def _undisturbed(case: str, workdir: Path) -> _Undisturbed:
    """Carries out a run without kills, and measures its time."""
    begin, process = time.monotonic(), _start(case, workdir)
    while not (workdir / "flags.json").exists() and process.poll() is None:
        time.sleep(0.01)
    start = time.monotonic() - begin
    if process.wait():
        sys.exit(f"kills.py: {workdir} failed; see {workdir.with_suffix('.log')}")
    return _Undisturbed(start, time.monotonic() - begin - start, _epochs(workdir))


def _kill(
    case: str, workdir: Path, times: _Undisturbed, draw: Any, saving: bool
) -> str:
    """Begins or continues a run, and kills it at a random moment.

    Returns:
      How far the run had come, in words; or "" if the run ended before the kill.
    """
    share = 1 - _epochs(workdir) / times.epochs
    # At least .4, because each process builds and traces the model again.
    seconds = times.start + draw.uniform(0, max(share, 0.4) * times.work)
    writings, before, begin = draw.randint(1, 6), None, time.monotonic()
    process = _start(case, workdir)
    while process.poll() is None:
        now = _written(workdir)
        began_to_write = now is not None and now != before
        writings -= began_to_write
        before = now
        if saving and began_to_write and writings <= 0:
            break
        if not saving and time.monotonic() - begin > seconds:
            break
        time.sleep(0.001)
    process.kill()
    if process.wait() >= 0:
        if process.returncode:
            sys.exit(f"kills.py: {workdir} failed; see {workdir.with_suffix('.log')}")
        return ""
    masks = "" if (workdir / "masks.npz").exists() else ", no masks yet"
    now = _written(workdir)
    writing = f", while it wrote {now}" if now else ""
    return f"with {_epochs(workdir)} of {times.epochs} epochs done{masks}{writing}"


def _outcome(workdir: Path) -> dict[str, Any]:
    """Reads all that has to be the same with and without kills."""
    names = [str(p.relative_to(workdir)) for p in workdir.rglob("*") if p.is_file()]
    models = {
        path.name: [w.numpy().tobytes() for w in keras.models.load_model(path).weights]
        for path in workdir.glob("*.keras")
    }
    masks = tf_synflow.load_masks(workdir / "masks.npz")
    histories = {
        str(path.relative_to(workdir)): [
            {**row, "seconds": 0} for row in read_history(path.parent)
        ]
        for path in workdir.rglob("history.csv")
    }
    return {
        "files": sorted(name for name in names if "tensorboard" not in name),
        "weights": models,
        "masks": {name: np.packbits(mask).tobytes() for name, mask in masks.items()},
        "history": histories,
    }


def _compare(case: str, killed: Path, expected: dict[str, Any]) -> bool:
    """Prints and returns whether a killed run has the results of an undisturbed one."""
    found = _outcome(killed)
    other = [what for what in expected if found[what] != expected[what]]
    epochs = sum(map(len, expected["history"].values()))
    said = f"holds: the same {', '.join(expected)} of {epochs} epochs"
    print(
        f"{case}: {'FAILS: other ' + ', '.join(other) if other else said}", flush=True
    )
    return not other


def _carry_out(case: str, folder: Path) -> bool:
    """Kills the runs of a case, and compares each run that comes to its end.

    Returns:
      Whether all of these runs have the results of the undisturbed run.
    """
    begin, draw = time.monotonic(), random.Random(f"{_SEED.value} {case}")
    undisturbed, killed = folder / f"{case}_undisturbed", folder / f"{case}_killed"
    times = _undisturbed(case, undisturbed)
    print(
        f"{case}: undisturbed {times.start:.0f} s to begin, {times.work:.0f} s of work",
        flush=True,
    )
    expected, kills, holds = _outcome(undisturbed), 0, True
    while kills < _KILLS.value:
        where = _kill(case, killed, times, draw, saving=kills % 3 == 2)
        if where:
            kills += 1
            print(f"{case}: kill {kills} {where}", flush=True)
        else:  # the run came to its end; a new run takes the kills that are left
            holds &= _compare(case, killed, expected)
            shutil.rmtree(killed)
    if _start(case, killed).wait():
        sys.exit(f"kills.py: {killed} failed; see {killed.with_suffix('.log')}")
    holds &= _compare(case, killed, expected)
    print(f"{case}: {time.monotonic() - begin:.0f} s", flush=True)
    return holds


@in_one_line
def main(argv: list[str]) -> None:
    """Carries out the cases, one after the other."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    folder = Path(_FOLDER.value).absolute()
    if folder.exists():
        sys.exit(f"kills.py: {str(folder)!r} is there already; choose a new --folder")
    folder.mkdir(parents=True)
    failed = [case for case in _CASES.value if not _carry_out(case, folder)]
    print(f"FAILS: {', '.join(failed)}" if failed else "holds: all cases")
    sys.exit(bool(failed))


if __name__ == "__main__":
    flags.mark_flags_as_required(["folder"])
    app.run(main)
