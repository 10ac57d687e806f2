"""Carries out a grid of runs, and sums up what came out.

python scripts/sweep.py --sweepdir=runs/sweep --models=resnet20 --datasets=digits \
    --criteria=synflow,snip --ratios=10,100 --seeds=0,1 -- --epochs=5

What comes after -- goes to scripts/train.py, and so do the flags in the file --recipe.
Runs that have results are skipped, so the same command goes on where it was stopped.
runs.csv has a row for each run, summary.csv the mean, minimum and maximum over the
seeds.
"""

import signal
import sys
from pathlib import Path

from absl import app, flags
from plain_errors import in_one_line
from tqdm.auto import tqdm

from tf_synflow.experiments import sweep
from tf_synflow.files.whole import write_csv

_SWEEPDIR = flags.DEFINE_string("sweepdir", None, "Folder for the runs.", required=True)
_AXES = {
    "model": flags.DEFINE_list("models", ["resnet20"], "Networks."),
    "dataset": flags.DEFINE_list("datasets", ["digits"], "Data sets."),
    "criterion": flags.DEFINE_list("criteria", ["synflow"], "Criteria."),
    "ratio": flags.DEFINE_list("ratios", ["10"], "Compression ratios."),
    "seed": flags.DEFINE_list("seeds", ["0"], "Seeds."),
}
_RECIPE = flags.DEFINE_string("recipe", None, "File of flags for scripts/train.py.")
_SHARD = flags.DEFINE_string(
    "shard", "0/1", "i/n: every n-th run from the i-th, from 0."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what would be run.")


@in_one_line
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
    script = Path(__file__).with_name("train.py")
    recipe = [f"--flagfile={_RECIPE.value}"] if _RECIPE.value else []
    # Told to end, it ends the run that it has begun too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("sweep.py: told to end"))
    failed = sweep.carry_out(
        folder, runs, [*recipe, *argv[1:]], script, lambda r: tqdm(r, unit="run")
    )
    every = sweep.rows(folder, sweep.grid(axes))  # of all shards, so far
    write_csv(folder / "runs.csv", every)
    write_csv(folder / "summary.csv", sweep.summary(every))
    for row in sweep.summary(every):
        accuracy = " to ".join(
            f"{100 * row[f'final_accuracy_{which}']:.2f}" for which in ("min", "max")
        )
        print(
            f"{row['model']} {row['dataset']} {row['criterion']} {row['ratio']}: "
            f"{100 * row['final_accuracy_mean']:.2f} % ({accuracy}, "
            f"{row['seeds']} seeds)"
        )
    for run in failed:
        print(f"failed: {sweep.folder(folder, run)}.error.txt", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    app.run(main)
