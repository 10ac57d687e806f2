"""Carries out a grid of runs, and sums up the results.

tf-synflow sweep --sweepdir=runs/sweep --models=resnet20 --datasets=digits \
    --criteria=synflow,snip --ratios=10,100 --seeds=0,1 -- --epochs=5

The flags after `--` are passed to `tf-synflow train`, and so are those in the file that
--recipe names. The program skips runs that have results, so the same command continues
where it was stopped. It writes runs.csv, with a row for each run, and summary.csv, with
the mean, minimum and maximum over the seeds.
"""

import signal
import sys
from pathlib import Path

from absl import flags
from tqdm.auto import tqdm

from tf_synflow.commands.flag_files import flag_file
from tf_synflow.experiments import sweep
from tf_synflow.files.whole import write_csv

TAKES_WORDS = True  # the words after --

_SWEEPDIR = flags.DEFINE_string(
    "sweepdir", None, "Folder to write the runs to.", required=True
)
_AXES = {
    "model": flags.DEFINE_list("models", ["resnet20"], "Networks to try."),
    "dataset": flags.DEFINE_list("datasets", ["digits"], "Data sets to try."),
    "criterion": flags.DEFINE_list("criteria", ["synflow"], "Criteria to try."),
    "ratio": flags.DEFINE_list("ratios", ["10"], "Compression ratios to try."),
    "seed": flags.DEFINE_list("seeds", ["0"], "Seeds to try."),
    "c": flags.DEFINE_list(
        "cs", [], "Strengths of GRDA's threshold to try; 0 is plain SGD. Default: one."
    ),
    "mu": flags.DEFINE_list(
        "mus", [], "Growths of GRDA's threshold to try. Default: one."
    ),
}
_RECIPE = flags.DEFINE_string(
    "recipe", None, "File of flags for each run, or the name of one of the library's."
)
_SHARD = flags.DEFINE_string(
    "shard",
    "0/1",
    "i/n: carry out every n-th run, beginning with run i, counted from 0.",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only print the folders of the runs that are missing."
)


def main(argv: list[str]) -> None:
    """Carries the grid out."""
    folder = Path(_SWEEPDIR.value)
    axes = {axis: flag.value for axis, flag in _AXES.items()}
    runs = sweep.grid(axes, _SHARD.value)
    missing = [run for run in runs if not sweep.is_done(folder, run)]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them done already")
    if _DRY_RUN.value:
        for run in missing:
            print(sweep.folder(folder, run))
        return
    recipe = [f"--flagfile={flag_file(_RECIPE.value)}"] if _RECIPE.value else []
    # If this program is told to end, it also ends the run that it has begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("tf-synflow sweep: told to end"))
    failed = sweep.carry_out(
        folder,
        runs,
        [*recipe, *argv[1:]],
        progress=lambda runs: tqdm(runs, unit="run"),
    )
    every = sweep.rows(folder, sweep.grid(axes))  # of all shards, so far
    write_csv(folder / "runs.csv", every)
    write_csv(folder / "summary.csv", sweep.summary(every))
    for row in sweep.summary(every):
        accuracy = " to ".join(
            f"{100 * row[f'final_accuracy_{which}']:.2f}" for which in ("min", "max")
        )
        grda = [f"{axis}={row[axis]}" for axis in sweep.MORE_AXES if axis in row]
        what = [row[axis] for axis in ("model", "dataset", "criterion", "ratio")]
        print(
            f"{' '.join([*what, *grda])}: "
            f"{100 * row['final_accuracy_mean']:.2f} % ({accuracy}, "
            f"{row['seeds']} seeds)"
        )
    for run in failed:
        print(f"failed: {sweep.folder(folder, run)}.error.txt", file=sys.stderr)
    sys.exit(bool(failed))
