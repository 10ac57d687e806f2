"""Damages the small files of a run at random, and counts what is believed all the same.

python scripts/benchmarks/damages.py

A tiny network is trained for two epochs on the digits, twice: with seed 0, whose files
are damaged, and with seed 1, whose files are swapped with them. Each damage is done to
a fresh copy of the folder, finished or cut short just before its results, and what the
library reads there is compared with what it read before:

- refused: an error in one line that names the file, the folder of the checkpoints, or
  the run, if it is another one;
- harmless: what is read is the same, or there is nothing, and it is made again;
- wrong: something else is read. This must never be;
- unclear: the error is another one, or does not name the file. Nor must this be.
"""

import collections
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from absl import app, flags
from tqdm.auto import tqdm

import tf_synflow
from tf_synflow import models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments.checkpoints import Checkpoints, HistoryFile, read_history
from tf_synflow.experiments.recipe import Recipe, optimizer
from tf_synflow.experiments.results import read_results
from tf_synflow.experiments.run_folder import run_folder
from tf_synflow.experiments.settings import Pruning
from tf_synflow.keras2.imports import keras

_DAMAGES = flags.DEFINE_integer("damages", 600, "Number of damages.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds the damages.")

EPOCHS = 2
CHECKPOINT = f"checkpoints/epoch_{EPOCHS}"
FINISHED = ["results.json", "history.csv", "masks.npz"]
UNFINISHED = [
    "flags.json", "versions.json", "pruned.json", "masks.npz",
    f"{CHECKPOINT}/history.csv", f"{CHECKPOINT}/checkpoint.json",
    f"{CHECKPOINT}/state.index",
    f"{CHECKPOINT}/state.data-00000-of-00001", CHECKPOINT,
]  # fmt: skip


def _network(*_: Any) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.AveragePooling2D(4),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(10, name="classifier"),
        ]
    )


class Stopped(BaseException):
    """Ends a run just before its results are written."""


def _flags(seed: int) -> dict[str, Any]:
    return {"model": "tiny", "ratio": 4.0, "criterion": "synflow", "seed": seed}


def _run(folder: Path, seed: int) -> None:
    """Makes two folders of a run.

    `unfinished` has a run that was stopped before it wrote its results, and `finished`
    has the whole run.
    """

    def go_on() -> None:
        experiment.run(
            folder / "finished",
            model="tiny",
            dataset="digits",
            pruning=Pruning(
                4.0, tf_synflow.PruningPolicy(iterations=3, progress=False)
            ),
            recipe=_recipe(seed),
            flags=_flags(seed),
        )

    with mock.patch.object(models, "build", _network):
        with (
            mock.patch.object(experiment, "_write", side_effect=Stopped),
            contextlib.suppress(Stopped),
        ):
            go_on()
        shutil.copytree(folder / "finished", folder / "unfinished")
        go_on()


def _recipe(seed: int) -> Recipe:
    return Recipe(EPOCHS, 128, 0.1, seed, images=256)


class _Reader:
    """Reads all that the library accepts from a folder of a run with seed 0."""

    def __init__(self) -> None:
        keras.utils.set_random_seed(0)
        masks = tf_synflow.PruningPolicy(iterations=3, progress=False).masks(
            _network(), 4.0
        )
        self.model = tf_synflow.apply_masks(_network(), masks)
        self.model.compile(optimizer(_recipe(0), steps=2), "mse")
        self.model.optimizer.build(self.model.trainable_variables)

    def finished(self, folder: Path) -> dict[str, Any]:
        """Reads a finished run: its masks, its history, and its results.

        The results are read twice: as a new training sees them, and as a sweep does.
        """
        with run_folder(folder, _flags(0)) as run:
            again = run.results
        path = folder / "results.json"
        results = read_results(path) if path.is_file() else None
        return {"results": [again, results], **_made(folder)}

    def unfinished(self, folder: Path) -> dict[str, Any]:
        """Reads the versions and masks of a run, and the state for its next epoch."""
        with contextlib.suppress(Stopped), run_folder(folder, _flags(0)) as run:
            read: dict[str, Any] = {
                "versions": run.note_versions(experiment.versions())
            }
            masks = run.masks()
            if masks is not None:
                read["masks"] = {name: mask.tolist() for name, mask in masks.items()}
                read["seconds"] = run.prune_seconds()
            variables = [*self.model.weights, *self.model.optimizer.variables]
            for variable in variables:  # so that a variable not restored is noticed
                variable.assign(
                    variable.dtype.as_numpy_dtype(3) * np.ones_like(variable)
                )
            history = HistoryFile(folder / "history.csv", [])
            keep = Checkpoints(folder / "checkpoints", history, run.run)
            if done := keep.restore(self.model):
                read["epochs"], read["history"] = done, history.rows
                read["state"] = [v.numpy().tobytes().hex() for v in variables]
            raise Stopped  # so that the folder is left as it is
        return read


def _made(folder: Path) -> dict[str, Any]:
    """Reads the masks and the history of a run; each file may be missing."""
    read: dict[str, Any] = {}
    if (folder / "masks.npz").is_file():
        masks = tf_synflow.load_masks(folder / "masks.npz")
        read["masks"] = {name: mask.tolist() for name, mask in masks.items()}
    if (folder / "history.csv").is_file():
        read["history"] = read_history(folder)
    return read


# Each damage takes a file, the same file of the other run, and a random generator.


def _empty(path: Path, other: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def _truncate(path: Path, other: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def _delete(path: Path, other: Path, draw: random.Random) -> None:
    path.unlink()


def _flip_bits(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 2, 8])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _change_a_digit(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    places = [k for k, byte in enumerate(content) if chr(byte) in "0123456789"]
    if places:
        place = draw.choice(places)
        content[place] = ord(draw.choice("0123456789".replace(chr(content[place]), "")))
    path.write_bytes(content)


def _zero_a_page(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    size = draw.choice([64, 512, 4096])
    start = draw.randrange(-(-len(content) // size)) * size
    end = min(start + size, len(content))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def _append(path: Path, other: Path, draw: random.Random) -> None:
    with open(path, "ab") as file:
        file.write(draw.choice([b"\0", b"1", b"\n", path.read_bytes()]))


def _cut_out(path: Path, other: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    start = draw.randrange(len(content))
    path.write_bytes(content[:start] + content[start + draw.randint(1, 100) :])


def _swap(path: Path, other: Path, draw: random.Random) -> None:
    """Copies a file of the other run, or another file of this run, over a file."""
    beside = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    shutil.copyfile(draw.choice([other, other, *beside]), path)


def _delete_keys(path: Path, other: Path, draw: random.Random) -> None:
    """Deletes keys of JSON, a row or column of a table, or a member of an archive."""
    if path.suffix == ".json":
        content = json.loads(path.read_bytes())
        for _ in range(draw.choice([1, 1, 2])):
            parts = list(_parts(content))
            if parts:
                part = draw.choice(parts)
                del part[draw.choice(list(part))]
        path.write_text(json.dumps(content, indent=2) + "\n")
    elif path.suffix == ".csv":
        table = [line.split(",") for line in path.read_text().splitlines()]
        if draw.random() < 0.5:
            del table[draw.randrange(len(table))]
        else:
            column = draw.randrange(len(table[0]))
            table = [row[:column] + row[column + 1 :] for row in table]
        path.write_text("".join(",".join(row) + "\n" for row in table))
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        del members[draw.choice(list(members))]
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        _cut_out(path, other, draw)


def _parts(content: Any) -> Iterator[dict]:
    """Yields all dictionaries in parsed JSON that have keys."""
    if isinstance(content, list):
        for value in content:
            yield from _parts(value)
    elif isinstance(content, dict):
        if content:
            yield content
        for value in content.values():
            yield from _parts(value)


def _of_a_folder(path: Path, other: Path, draw: random.Random) -> None:
    """Damages the folder of a checkpoint.

    The folder is deleted, renamed or replaced by that of the other run; or two of its
    files are swapped, or all of them emptied.
    """
    kind = draw.randrange(5)
    if kind == 0:
        shutil.rmtree(path)
    elif kind == 1:
        path.rename(path.with_name(f"epoch_{draw.choice([1, 3, 10])}"))
    elif kind == 2:
        shutil.rmtree(path)
        shutil.copytree(other, path)
    elif kind == 3:
        a, b = draw.sample(sorted(path.iterdir()), 2)
        content = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(content)
    else:
        for file in path.iterdir():
            file.write_bytes(b"")


KINDS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "empty": _empty,
    "truncate": _truncate,
    "delete": _delete,
    "flip bits": _flip_bits,
    "change a digit": _change_a_digit,
    "delete keys": _delete_keys,
    "swap": _swap,
    "zero a page": _zero_a_page,
    "append": _append,
    "cut out": _cut_out,
}


def _same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether all that was read is right.

    Parts that were not read do not count: the library makes them again.
    """
    return all(
        json.dumps(value) == json.dumps(expected[key]) for key, value in found.items()
    )


def _outcome(read: Callable[[Path], dict], place: Path, name: str, right: dict) -> str:
    """Reads a folder with a damaged file, and says what came of it.

    Returns:
      "refused", "harmless", "wrong" or "unclear"; the top of this file explains them.
    """
    try:
        return "harmless" if _same(read(place), right) else "wrong"
    except (ValueError, OSError) as error:
        # For a checkpoint the error names the folder, which has to be deleted.
        what = "checkpoints" if name.startswith("checkpoints") else name
        named = (f"{place / what}", f"'{place}' holds", f"the run in '{place}' was")
        clear = any(name in str(error) for name in named)
        if clear and len(str(error).splitlines()) == 1:
            return "refused"
        tqdm.write(f"{name}: {error!r}", file=sys.stderr)
    except Exception as error:  # any other error would reach the user as a traceback
        tqdm.write(f"{name}: {error!r}", file=sys.stderr)
    return "unclear"


@in_one_line
def main(argv: list[str]) -> None:
    """Makes the runs, damages their files, and prints tables of the outcomes."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    draw = random.Random(_SEED.value)
    counts: dict[str, collections.Counter] = {}
    kinds: dict[str, collections.Counter] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / "mine", Path(folder) / "other"]
        for seed, run in enumerate(runs):
            with contextlib.redirect_stdout(io.StringIO()):
                _run(run, seed)
        reader = _Reader()
        states = {
            "finished": (FINISHED, reader.finished),
            "unfinished": (UNFINISHED, reader.unfinished),
        }
        right = {state: read(runs[0] / state) for state, (_, read) in states.items()}
        cases = [
            (state, name) for state, (names, _) in states.items() for name in names
        ]
        for number in tqdm(range(_DAMAGES.value), unit="damage"):
            state, name = cases[number % len(cases)]
            kind = draw.choice(list(KINDS))
            place = Path(folder) / "damaged"
            shutil.copytree(runs[0] / state, place)
            path, other = place / name, runs[1] / state / name
            (_of_a_folder if path.is_dir() else KINDS[kind])(path, other, draw)
            found = _outcome(states[state][1], place, name, right[state])
            counts.setdefault(f"{state}/{name}", collections.Counter())[found] += 1
            if path.suffix or not path.is_dir():
                kinds.setdefault(kind, collections.Counter())[found] += 1
            shutil.rmtree(place)
    every = collections.Counter()
    for title, table in (("file", counts), ("damage", kinds)):
        print(
            f"| {title} | refused | harmless | wrong | unclear |\n|---|---|---|---|---|"
        )
        for what, row in table.items():
            _print(what, row)
        print()
    for row in counts.values():
        every.update(row)
    _print("all", every)
    sys.exit(bool(every["wrong"] or every["unclear"]))


def _print(what: str, row: collections.Counter) -> None:
    cells = [str(row[key]) for key in ("refused", "harmless", "wrong", "unclear")]
    print(f"| {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
