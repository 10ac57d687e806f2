"""Prunes a network before training, trains it, and writes what came out.

python scripts/train.py --flagfile=configs/quickstart.flags

A run that was killed goes on where it was, with the same command; one that is finished
is left alone.
"""

import sys
from pathlib import Path

from absl import app, flags
from plain_errors import in_one_line

import tf_synflow
from tf_synflow import models
from tf_synflow.criteria import CRITERIA
from tf_synflow.experiments import data, distribution
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments.recipe import DECAYS, Recipe
from tf_synflow.experiments.settings import Place, Pruning
from tf_synflow.masks import counts as masks

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the files of the run.")
_MODEL = flags.DEFINE_enum("model", None, sorted(models.MODELS), "Network.")
_DATASET = flags.DEFINE_enum("dataset", None, sorted(data.DATASETS), "Data set.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of tensorflow_datasets; for tiny_imagenet also the official zip or folder. "
    "Default: ~/tensorflow_datasets.",
)
_DOWNLOAD = flags.DEFINE_bool("download", True, "Fetch data that is not there.")
_RATIO = flags.DEFINE_float(
    "ratio", None, ">= 1: prunable over kept weights; below 1: fraction removed."
)
_CRITERION = flags.DEFINE_enum("criterion", "synflow", CRITERIA, "Scores by.")
_ITERATIONS = flags.DEFINE_integer(
    "iterations", None, "How often to score and remove. Default: the criterion's own."
)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", "exponential", masks.SCHEDULES, "How the density falls."
)
_SCOPE = flags.DEFINE_enum("scope", "global", masks.SCOPES, "What is ranked together.")
_DTYPE = flags.DEFINE_enum("dtype", "float64", ["float64", "float32"], "Scores in.")
_PRUNE_IMAGES = flags.DEFINE_integer(
    "prune_images", None, "Training images to score by. Default: ten times the classes."
)
_PRUNE_IN_TRAINING_MODE = flags.DEFINE_bool(
    "prune_in_training_mode", False, "BatchNorm normalises by the batch when scoring."
)
_LEVELS = flags.DEFINE_integer(
    "levels", 0, "Levels of training, pruning and rewinding.", lower_bound=0
)
_GRANULARITY = flags.DEFINE_enum(
    "granularity", "weight", ["weight", "filter"], "What is removed, and counted."
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 0, "Rounds of an epoch and pruning, of filters.", lower_bound=0
)
_INVERT = flags.DEFINE_bool("invert", False, "Ablation: remove the highest scores.")
_SHUFFLE = flags.DEFINE_bool("shuffle", False, "Ablation: shuffle within each layer.")
_REINITIALISE = flags.DEFINE_bool(
    "reinitialise", False, "Ablation: draw the weights anew after pruning."
)
_SHRINK = flags.DEFINE_bool(
    "shrink", False, "Train the network without its dead channels: as good, and faster."
)
# None, not 1: runs begun before there was the flag can be gone on with.
_MULTIPLE_OF = flags.DEFINE_integer(
    "multiple_of", None, "With --shrink: widths are rounded up to it. Default: 1."
)
_OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", ["sgd", "grda"], "Trains with.")
_C = flags.DEFINE_float("c", 5e-4, "Of GRDA: strength of the threshold.")
_MU = flags.DEFINE_float("mu", 0.51, "Of GRDA: growth of the threshold, 0.5 to 1.")
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Passes over the data.", lower_bound=1)
_TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", None, "Of the training set, for scoring too. Default: all."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.1, "At the first step.", lower_bound=0.0
)
_DECAY = flags.DEFINE_enum(
    "decay", "cosine", DECAYS, "How the learning rate falls: cosine, to 0."
)
_DROPS = flags.DEFINE_list(
    "drops", [], "With --decay=step: after which epochs the learning rate drops."
)
_DROP_FACTOR = flags.DEFINE_float(
    "drop_factor", 0.1, "What it is multiplied by at each drop.", lower_bound=0.0
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", 0.0, "As an L2 gradient, on every variable.", lower_bound=0.0
)
_DISTRIBUTE = flags.DEFINE_enum(
    "distribute", "auto", distribution.DISTRIBUTIONS, "Which devices train together."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", distribution.PRECISIONS, "Of activations in training."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds the weights and the order of images.")


def _drops() -> tuple[int, ...]:
    try:
        return tuple(int(drop) for drop in _DROPS.value)
    except ValueError as error:
        raise ValueError(f"--drops must be whole numbers: {_DROPS.value}") from error


@in_one_line
def main(argv: list[str]) -> None:
    """Runs the experiment that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    results = experiment.run(
        Path(_WORKDIR.value),
        model=_MODEL.value,
        dataset=_DATASET.value,
        pruning=Pruning(
            ratio=_RATIO.value,
            policy=tf_synflow.PruningPolicy(
                criterion=_CRITERION.value,
                iterations=_ITERATIONS.value,
                schedule=_SCHEDULE.value,
                scope=_SCOPE.value,
                seed=_SEED.value,
                dtype=_DTYPE.value,
                training=_PRUNE_IN_TRAINING_MODE.value,
                invert=_INVERT.value,
                granularity=_GRANULARITY.value,
            ),
            images=_PRUNE_IMAGES.value,
            levels=_LEVELS.value,
            rounds=_ROUNDS.value,
            shuffle=_SHUFFLE.value,
            reinitialise=_REINITIALISE.value,
            shrink=_SHRINK.value,
            multiple_of=1 if _MULTIPLE_OF.value is None else _MULTIPLE_OF.value,
        ),
        recipe=Recipe(
            epochs=_EPOCHS.value,
            batch_size=_BATCH_SIZE.value,
            learning_rate=_LEARNING_RATE.value,
            seed=_SEED.value,
            decay=_DECAY.value,
            drops=_drops(),
            drop_factor=_DROP_FACTOR.value,
            weight_decay=_WEIGHT_DECAY.value,
            images=_TRAIN_IMAGES.value,
            grda=(_C.value, _MU.value) if _OPTIMIZER.value == "grda" else None,
        ),
        place=Place(
            _DATA_DIR.value, _DOWNLOAD.value, _DISTRIBUTE.value, _PRECISION.value
        ),
        flags={
            flag.name: flag.value
            for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])
        },
    )
    prune, train = results["prune"], results["train"]
    final, best = (100 * train[f"{which}_accuracy"] for which in ("final", "best"))
    if "filters" in prune:
        left = prune["filters"]
        print(f"kept {left['kept']:,} of {left['prunable']:,} filters")
    print(
        f"kept {prune['kept']:,} of {prune['prunable']:,} weights; test accuracy "
        f"{final:.2f} % (best {best:.2f} %) after {train['epochs']} epochs; pruned in "
        f"{prune['seconds']:.1f} s, trained in {train['seconds']:.0f} s; files in "
        f"{_WORKDIR.value}"
    )
    if "shrink" in results:
        left, whole = (results["shrink"][which] for which in ("after", "before"))
        print(
            f"trained smaller: {left['parameters']:,} of "
            f"{whole['parameters']:,} parameters, "
            f"{left['macs'] / whole['macs']:.1%} of the multiply-adds"
        )
    if prune["collapsed_layers"]:
        print(f"nothing is left of {', '.join(prune['collapsed_layers'])}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "model", "dataset", "ratio"])
    app.run(main)
