"""Lists the runs of a grid, carries out the missing ones, and sums up the results."""

import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from tf_synflow.experiments.results import read_results
from tf_synflow.files.whole import written_whole

TRAIN = (sys.executable, "-m", "tf_synflow", "train")
AXES = ("model", "dataset", "criterion", "ratio", "seed")
# Optional axes. If a sweep does not have them, its names and tables leave them out.
MORE_AXES = ("c", "mu")
_EVERY_AXIS = (*AXES, *MORE_AXES)

Run = dict[str, str]  # axis to value, as written on the command line

# This code starts the program of a run. Linux kills the run when the sweep ends,
# however the sweep ends. The new process itself asks Linux for this: asking between
# fork and exec would not be safe, because TensorFlow has threads. On other systems, a
# run goes on if its sweep is killed.
_UNDER_THE_SWEEP = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it was gone before
        os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def grid(axes: Mapping[str, Sequence[str]], shard: str = "0/1") -> list[Run]:
    """All combinations of the values of the axes, or a part of the combinations.

    At ratio 1 all criteria keep every weight. So the grid has the dense network once,
    under the first criterion. With c = 0, the optimizer GRDA is plain SGD for any mu.
    So the grid has c = 0 only with the first mu.

    Args:
      axes: Axis to its values, for each of `AXES`, and for any of `MORE_AXES`.
      shard: "i/n": every n-th run, beginning with the i-th, counted from 0; so that n
        machines share the grid.

    Raises:
      ValueError: An axis has no value or one twice, or `shard` is not i/n with 0 <= i <
        n.
    """
    names = (*AXES, *(axis for axis in MORE_AXES if axes.get(axis)))
    for axis in names:
        if not axes[axis]:
            raise ValueError(f"the grid is empty: give at least one {axis}")
        values = [_number(value) for value in axes[axis]]
        if len(set(values)) < len(values):
            raise ValueError(f"give each {axis} once, got {list(axes[axis])}")
    part, _, parts = shard.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise ValueError(f"shard must be i/n with 0 <= i < n, got {shard!r}")
    products = itertools.product(*(axes[axis] for axis in names))
    runs = [dict(zip(names, values, strict=True)) for values in products]
    first = axes["criterion"][0]
    runs = [run for run in runs if run["criterion"] == first or not _dense(run)]
    if "mu" in names:
        first = axes["mu"][0]
        runs = [run for run in runs if run["mu"] == first or not _is_sgd(run)]
    return runs[int(part) :: int(parts)]


def _number(value: str) -> float | str:
    """A value as a number, so that 10 and 10.0 are equal; other text as it is."""
    try:
        return float(value)
    except ValueError:
        return value


def _dense(run: Run) -> bool:
    return _number(run["ratio"]) in (0, 1)


def _is_sgd(run: Run) -> bool:
    return "c" in run and _number(run["c"]) == 0


def folder(sweep: Path, run: Run) -> Path:
    """The folder of a run."""
    more = [f"{axis}{run[axis]}" for axis in MORE_AXES if axis in run]
    return sweep / "-".join([*(run[axis] for axis in AXES), *more])


def is_done(sweep: Path, run: Run) -> bool:
    """Whether a run has its results.

    Raises:
      ValueError: The results are damaged, or those of another run.
    """
    return _results(sweep, run) is not None


def _results(sweep: Path, run: Run) -> dict[str, Any] | None:
    """The results of a run; None if there are none yet."""
    path = folder(sweep, run) / "results.json"
    if not path.is_file():
        return None
    results = read_results(path)
    flags = results["flags"]
    other = [
        f"{axis}={flags.get(axis)}, not {run[axis]}"
        for axis in run
        if _number(str(flags.get(axis))) != _number(run[axis])
    ]
    if other:
        raise ValueError(
            f"{str(path)!r} holds results of another run, with {', '.join(other)}. "
            "Move its folder away, and the run is made again"
        )
    return results


def carry_out(
    sweep: Path,
    runs: Sequence[Run],
    flags: Sequence[str],
    program: Sequence[str] = TRAIN,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[Run]:
    """Carries out the runs that have no results yet, one after the other.

    Each run is a process of its own. A run that was killed before continues where it
    was. The output of a failed run is written to `<its name>.error.txt`, in UTF-8; then
    the next run begins. When this process ends, the present run ends too (on Linux even
    if this process is killed).

    Args:
      sweep: Folder of the sweep; it is created if it does not exist.
      runs: The runs that `grid` returned.
      flags: More flags for each run. A flag file stands for its present content.
      program: The command that carries out one run. Defaults to `tf-synflow train`.
      progress: Wraps the runs, as tqdm does.

    Returns:
      The runs that failed.

    Raises:
      ValueError: The folder is that of a sweep with other flags, a flag file cannot be
        read, or c or mu are tried with another optimizer than GRDA.
    """
    meant = _spelt_out(flags)
    _check_flags(meant, runs)
    if not any(run["dataset"] == "tiny_imagenet" for run in runs):
        # The place of the data does not change the data, except for Tiny ImageNet,
        # where a folder may hold only a part.
        elsewhere = ("data_dir", "download", "nodownload")
        meant = [flag for flag in meant if _name(flag) not in elsewhere]
    sweep.mkdir(parents=True, exist_ok=True)
    _keep_flags(sweep / "flags.json", meant)
    failed = []
    for run in progress(runs):
        if is_done(sweep, run):
            continue
        final = folder(sweep, run)
        error = final.with_name(final.name + ".error.txt")
        command = [*program, *flags, f"--workdir={final}"]
        command += [f"--{axis}={value}" for axis, value in run.items()]
        done = subprocess.run(
            [sys.executable, "-I", "-c", _UNDER_THE_SWEEP, str(os.getpid()), *command],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # TensorFlow's output may not be UTF-8
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        if done.returncode:
            failed.append(run)
            with written_whole(error) as path:
                said = f"{' '.join(command)}\n{done.stderr[-20_000:]}\n"
                path.write_text(said, "utf-8", errors="backslashreplace")
        else:
            error.unlink(missing_ok=True)
    return failed


def _check_flags(meant: Sequence[str], runs: Sequence[Run]) -> None:
    """Refuses flags for all runs that the axes set, or that do not fit the axes."""
    set_here = {"workdir", *AXES, *(axis for run in runs for axis in run)}
    own = [flag for flag in meant if _name(flag) in set_here]
    if own:
        raise ValueError(f"{own} cannot be set for all runs: the grid sets them")
    is_grda = any(_name(f) == "optimizer" and f.endswith("=grda") for f in meant)
    if set_here & set(MORE_AXES) and not is_grda:
        raise ValueError(
            "c and mu are settings of the optimizer GRDA, but the runs train with SGD. "
            "Add --optimizer=grda to the flags of the runs, or leave out cs and mus"
        )


def _spelt_out(flags: Sequence[str]) -> list[str]:
    """The flags, each as one word; a flag file is replaced by the flags in it."""
    try:
        words = absl_flags.FlagValues().read_flags_from_files(list(flags))
    except absl_flags.Error as error:
        raise ValueError(str(error)) from error
    found: list[str] = []
    for word in words:
        if word.startswith("-") or not found or "=" in found[-1]:
            found.append(word)
        else:
            found[-1] += f"={word}"
    return found


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]


def _keep_flags(path: Path, flags: list[str]) -> None:
    """Writes the flags to a file, or compares them with those in the file."""
    if path.exists():
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is damaged: {error}") from error
        if before != flags:
            raise ValueError(
                f"the sweep in {str(path.parent)!r} was begun with the flags {before}, "
                f"got {flags}. One folder holds results of one set of flags; choose "
                "another folder"
            )
        return
    with written_whole(path) as aside:
        aside.write_text(json.dumps(flags) + "\n", "utf-8")


def rows(sweep: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each run that has results.

    `kept` is the number of kept weights. With the axes c and mu, `sparsity` is the
    share of all trainable weights that are 0 at the end (0 to 1). If filters were
    pruned, `filters` is the number of kept filters. If the network was shrunk,
    `macs_left` is the share of its multiply-adds that is left (0 to 1).
    """
    return [
        {**run, **_row(results, sparsity=any(axis in run for axis in MORE_AXES))}
        for run in runs
        if (results := _results(sweep, run)) is not None
    ]


def _row(results: Mapping[str, Any], sparsity: bool) -> dict[str, Any]:
    prune, train = results["prune"], results["train"]
    row = {
        "kept": prune["kept"],
        "final_accuracy": train["final_accuracy"],
        "best_accuracy": train["best_accuracy"],
        "prune_seconds": prune["seconds"],
        "train_seconds": train["seconds"],
        "emptied_layers": len(prune["collapsed_layers"]),
    }
    if sparsity:
        row["sparsity"] = train["final_sparsity"]
    if "filters" in prune:
        row["filters"] = prune["filters"]["kept"]
    if "shrink" in results:
        after, before = (
            results["shrink"][which]["macs"] for which in ("after", "before")
        )
        row["macs_left"] = after / before
    return row


def read_rows(sweep: Path) -> list[dict[str, str]]:
    """The rows of a sweep's `runs.csv`, as text.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged: a row is not whole, a value is not a number, or
        the file contradicts `summary.csv` beside it.
    """
    path, beside = sweep / "runs.csv", sweep / "summary.csv"
    again = "scripts/sweep.py writes both again from the results of the runs"
    try:
        table = _table(path)
        numbers = [
            {k: v if k in _EVERY_AXIS else json.loads(v) for k, v in row.items()}
            for row in table
        ]
        # As write_csv would write it.
        found = [{k: str(v) for k, v in row.items()} for row in summary(numbers)]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); {again}") from error
    if beside.is_file():
        try:
            same = found == _table(beside)
        except (ValueError, csv.Error):
            same = False
        if not same:
            raise ValueError(
                f"{str(path)!r} and {str(beside)!r} contradict each other: one of them "
                f"is damaged, or was edited; {again}"
            )
    return table


def _table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, each with a value in every column."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values() or "" in row.values():
            raise ValueError(f"row {number} is not whole")
    return rows


def summary(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean, minimum and maximum over the seeds, for each combination of other axes."""
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in runs:
        key = {axis: row[axis] for axis in AXES[:-1]}
        key |= {axis: row[axis] for axis in MORE_AXES if axis in row}
        groups.setdefault(tuple(key.items()), []).append(row)
    found = []
    for items, group in groups.items():
        row = {**dict(items), "seeds": len(group)}
        for column in group[0]:
            if column not in _EVERY_AXIS:
                values = [member[column] for member in group]
                row[f"{column}_mean"] = statistics.mean(values)
                row[f"{column}_min"] = min(values)
                row[f"{column}_max"] = max(values)
        found.append(row)
    return found
