"""Runs the first two steps of every flag file on made-up images: has one gone stale?

python scripts/benchmarks/rehearse.py

Of a sweep, every network on every data set, with its first criterion that needs no data
and its second ratio, or the only one, and with its last c and first mu; in batches of
two. The images are made up, so nothing is downloaded. Without arguments all of
configs/; or name the flag files.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from absl import flags

from tf_synflow.commands import train
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.criteria import DATA_FREE
from tf_synflow.experiments import data
from tf_synflow.keras2.imports import keras

CONFIGS = Path(__file__).parents[2] / "configs"


def read(path: Path) -> dict[str, str]:
    """Reads the flags of a file, name to value."""
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    pairs = [line[2:].partition("=") for line in lines if line.startswith("--")]
    return {name: value for name, _, value in pairs}


def commands(path: Path) -> list[list[str]]:
    """Gives the runs of a flag file, each as a list of flags for scripts/train.py."""
    found = read(path)
    if "sweepdir" not in found:
        return [[f"--flagfile={path}"]]
    criteria = found.get("criteria", "synflow").split(",")
    criterion = next(c for c in criteria if c in DATA_FREE)
    ratio = found["ratios"].split(",")[:2][-1]
    recipe = CONFIGS.parent / found["recipe"]
    grda = [f"--c={found['cs'].split(',')[-1]}"] if "cs" in found else []
    grda += [f"--mu={found['mus'].split(',')[0]}"] if "mus" in found else []
    return [
        [
            f"--flagfile={recipe}", f"--model={model}", f"--dataset={dataset}",
            f"--criterion={criterion}", f"--ratio={ratio}", *grda,
        ]
        for model in found["models"].split(",")
        for dataset in found["datasets"].split(",")
    ]  # fmt: skip


# Programs that draw. The key is a flag that only this program has. The value is the
# program's name, and flags that make it quick.
DRAWING = {
    "figure": (
        "figures",
        ["--alphas=1", "--iterations=1", "--seeds=0", "--images=2", "--size=32"]
        + ["--criteria=random,snip"],
    ),
    "mus": (
        "directional",
        ["--epochs=1", "--train_images=4", "--batch_size=2", "--looks=1"]
        + ["--eigenvectors=1", "--points=2", "--curve_epochs=1"],
    ),
    "image_size": (
        "gradient_flow",
        ["--epochs=0", "--ratios=0.5", "--seeds=0", "--after=1", "--images=8"]
        + ["--train_images=8", "--criteria=random,snip"],
    ),
}


def drawing(path: Path) -> str | None:
    """Gives the key in `DRAWING` of a flag file; None if the flag file is for runs."""
    found = read(path)
    return (
        None if "sweepdir" in found else next((f for f in DRAWING if f in found), None)
    )


def draw(path: Path) -> None:
    """Draws the figure of a flag file from little data, in a process of its own.

    Raises:
      SystemExit: The program fails; with the last line of its error.
    """
    program, short = DRAWING[drawing(path)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tf_synflow", program]
        command += [f"--flagfile={path}", *short, f"--output={folder}/figure"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr.strip().splitlines()[-1])


def rehearse(command: list[str]) -> None:
    """Runs two steps of one command in this process.

    Raises:
      SystemExit: The run is refused; with the text of the error.
    """
    import tensorflow_datasets as tfds

    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    with tempfile.TemporaryDirectory() as folder:
        short = ["--iterations=1", "--epochs=1", f"--workdir={folder}/run"]
        short += ["--batch_size=2", "--prune_images=2", "--train_images=4"]
        short.append(f"--data_dir={folder}/none")
        if any(word.startswith("--rounds=") for word in _spelt_out(command)):
            short.append("--rounds=1")
        argv = flags.FLAGS(["train.py", *command, *short])
        keras.backend.clear_session()
        with (
            tfds.testing.mock_data(num_examples=4),
            mock.patch.object(data, "digits", _made_up_digits),
        ):
            train.main(argv)


def _spelt_out(command: list[str]) -> list[str]:
    """Gives the flags of a command, with each flag file replaced by its flags."""
    return flags.FlagValues().read_flags_from_files(command)


def _made_up_digits() -> data.Dataset:
    draws = np.random.default_rng(0).random((4, 32, 32, 3), "float32")
    pairs = draws, np.arange(4)
    return data.Dataset(pairs, pairs, classes=10)


@in_one_line
def main(argv: list[str]) -> None:
    """Rehearses the flag files that the command line names, or all of them."""
    paths = [Path(name) for name in argv[1:]] or sorted(
        path for path in CONFIGS.rglob("*.flags") if path.parent.name != "recipes"
    )
    failed = 0
    for path in paths:
        for command in commands(path):
            start = time.perf_counter()
            outcome: Any = "holds"
            try:
                with (
                    open("/dev/null", "w") as nowhere,
                    contextlib.redirect_stdout(nowhere),
                ):
                    draw(path) if drawing(path) else rehearse(command)
            except (SystemExit, flags.Error, ValueError, OSError) as error:
                outcome, failed = f"FAILS ({error})", failed + 1
            what = " ".join(part for part in command if "flagfile" not in part)
            seconds = time.perf_counter() - start
            print(f"{outcome}  {path.name}  {what}  {seconds:.0f} s", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(sys.argv)
