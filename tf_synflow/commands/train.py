"""Prunes a network before training, trains it, and writes the results.

tf-synflow train --flagfile=quickstart

A run that was killed continues where it was, with the same command. A finished run is
left alone.
"""

from pathlib import Path
from typing import Any

from absl import flags

import tf_synflow
from tf_synflow import models
from tf_synflow.commands import pruning_flags
from tf_synflow.commands.data_flags import DATA_DIR, DOWNLOAD, TRAIN_IMAGES
from tf_synflow.commands.flag_values import numbers
from tf_synflow.commands.pruning_flags import ITERATIONS, RATIO, SCOPE
from tf_synflow.criteria import CRITERIA
from tf_synflow.experiments import data, distribution
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments.recipe import DECAYS, Recipe
from tf_synflow.experiments.settings import Place, Pruning
from tf_synflow.masks.counts import SCHEDULES
from tf_synflow.pruning.filter_rounds import Counting

flags.adopt_module_key_flags(pruning_flags)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder to write the run to.", required=True
)
_MODEL = flags.DEFINE_enum(
    "model", None, sorted(models.MODELS), "Network to build.", required=True
)
_DATASET = flags.DEFINE_enum(
    "dataset", None, sorted(data.DATASETS), "Data set to train on.", required=True
)
_CRITERION = flags.DEFINE_enum(
    "criterion", "synflow", CRITERIA, "Pruning criterion. Default: synflow."
)
_SCHEDULE = flags.DEFINE_enum(
    "schedule",
    "exponential",
    SCHEDULES,
    "How the density falls over the iterations. Default: exponential.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float64",
    ["float64", "float32"],
    "Floating-point type used for scoring. Default: float64.",
)
_PRUNE_IMAGES = flags.DEFINE_integer(
    "prune_images",
    None,
    "Number of training images to score by. Default: ten times the classes.",
)
_PRUNE_IN_TRAINING_MODE = flags.DEFINE_bool(
    "prune_in_training_mode",
    False,
    "BatchNormalization uses the statistics of the batch while scoring.",
)
_LEVELS = flags.DEFINE_integer(
    "levels",
    0,
    "Number of levels of training, pruning and rewinding before the final training.",
    lower_bound=0,
)
_GRANULARITY = flags.DEFINE_enum(
    "granularity",
    "weight",
    ["weight", "filter"],
    "Whether single weights or whole filters are removed and counted. Default: weight.",
)
_ROUNDS = flags.DEFINE_integer(
    "rounds",
    0,
    "Prune filters in this number of rounds, with one epoch of training before each.",
    lower_bound=0,
)
_ZERO_ADDED = flags.DEFINE_bool(
    "zero_added",
    None,
    "With --rounds: count all filters, and zero those that are added to others' "
    "outputs, as in ResNets. Default: false, they neither count nor go.",
)
_WHOLE_PERCENTS = flags.DEFINE_bool(
    "whole_percents",
    None,
    "With --rounds: cut what is left after each round down to a whole percentage, as "
    "the authors of the gradient flow framework do in ResNets. Default: false.",
)
_INVERT = flags.DEFINE_bool(
    "invert", False, "Ablation: remove the highest scores, not the lowest."
)
_SHUFFLE = flags.DEFINE_bool(
    "shuffle", False, "Ablation: shuffle the mask within each weight tensor."
)
_REINITIALISE = flags.DEFINE_bool(
    "reinitialise", False, "Ablation: draw new weights after pruning."
)
_SHRINK = flags.DEFINE_bool(
    "shrink", False, "Take out dead channels, and train the smaller network."
)
# None, not 1: so runs that were begun before this flag existed can be continued.
_MULTIPLE_OF = flags.DEFINE_integer(
    "multiple_of",
    None,
    "With --shrink: round the number of channels up to a multiple of this. Default: 1.",
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "sgd", ["sgd", "grda"], "Optimizer to train with. Default: sgd."
)
_C = flags.DEFINE_float("c", 5e-4, "GRDA: strength of the threshold, 0 or more.")
_MU = flags.DEFINE_float(
    "mu",
    0.51,
    "GRDA: growth of the threshold, between 0 and 1; its theory needs > 0.5.",
)
# None, not the default: so runs that were begun before this flag existed can be
# continued. This holds for flags below too.
_MOMENTUM = flags.DEFINE_float(
    "momentum", None, "SGD: momentum, 0 or more and below 1. Default: 0.9."
)
_NESTEROV = flags.DEFINE_bool(
    "nesterov", None, "SGD: Nesterov momentum, not plain momentum. Default: true."
)
_START_FROM = flags.DEFINE_string(
    "start_from",
    None,
    "Begin with the weights in this file instead of new ones: .keras, .h5 or "
    ".weights.h5, the folder of a SavedModel, or a checkpoint, of TensorFlow or of a "
    "run (checkpoints/epoch_10).",
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature",
    None,
    "Divide the logits by this number in the training loss. Scoring has temperatures "
    "of its own. Default: 1.",
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 20, "Number of passes over the training images.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 128, "Number of images in a step, over all devices.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.1, "Learning rate at the first step.", lower_bound=0.0
)
_DECAY = flags.DEFINE_enum(
    "decay",
    "cosine",
    DECAYS,
    "How the learning rate falls: cosine ends at 0, step drops at --drops, garipov is "
    "constant for half of the epochs and then falls to a hundredth.",
)
_DROPS = flags.DEFINE_list(
    "drops", [], "With --decay=step: epochs after which the learning rate drops."
)
_DROP_FACTOR = flags.DEFINE_float(
    "drop_factor",
    0.1,
    "With --decay=step: factor of the learning rate at each drop.",
    lower_bound=0.0,
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay",
    0.0,
    "L2 weight decay, added to the gradient of every variable.",
    lower_bound=0.0,
)
_MEAN = flags.DEFINE_list(
    "mean",
    None,
    "Numbers to subtract from the channels of images within 0 and 1. Default: those of "
    "the data set.",
)
_STD = flags.DEFINE_list(
    "std", None, "Numbers to divide them by then. Default: those of the data set."
)
_SAVE_BEST = flags.DEFINE_bool(
    "save_best",
    None,
    "Also write the model of the epoch with the best test accuracy, as best.keras. "
    "Default: false.",
)
_DISTRIBUTE = flags.DEFINE_enum(
    "distribute",
    "auto",
    distribution.DISTRIBUTIONS,
    "Devices that train together. auto: all GPUs of this machine.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    distribution.PRECISIONS,
    "Floating-point type of the activations in training.",
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the weights, the order of the images and their augmentation."
)


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags describe, and prints the result."""
    results = experiment.run(
        Path(_WORKDIR.value),
        model=_MODEL.value,
        dataset=_DATASET.value,
        pruning=_pruning(),
        recipe=_recipe(),
        start_from=_START_FROM.value,
        place=Place(
            data_dir=DATA_DIR.value,
            download=DOWNLOAD.value,
            distribute=_DISTRIBUTE.value,
            precision=_PRECISION.value,
            mean=_values("mean", _MEAN.value),
            std=_values("std", _STD.value),
        ),
        flags={
            flag.name: flag.value
            for flag in flags.FLAGS.get_key_flags_for_module(__name__)
        },
    )
    print(summary(results, _WORKDIR.value))


def _pruning() -> Pruning:
    policy = tf_synflow.PruningPolicy(
        criterion=_CRITERION.value,
        iterations=ITERATIONS.value,
        schedule=_SCHEDULE.value,
        scope=SCOPE.value,
        seed=_SEED.value,
        dtype=_DTYPE.value,
        training=_PRUNE_IN_TRAINING_MODE.value,
        invert=_INVERT.value,
        granularity=_GRANULARITY.value,
    )
    return Pruning(
        ratio=RATIO.value,
        policy=policy,
        images=_PRUNE_IMAGES.value,
        levels=_LEVELS.value,
        rounds=_ROUNDS.value,
        counting=Counting(bool(_ZERO_ADDED.value), bool(_WHOLE_PERCENTS.value)),
        shuffle=_SHUFFLE.value,
        reinitialise=_REINITIALISE.value,
        shrink=_SHRINK.value,
        multiple_of=1 if _MULTIPLE_OF.value is None else _MULTIPLE_OF.value,
    )


def _recipe() -> Recipe:
    if _OPTIMIZER.value == "grda":
        for flag in (_MOMENTUM, _NESTEROV):
            if flag.value is not None:
                raise ValueError(
                    f"GRDA has no momentum, got --{flag.name}={flag.value}; leave the "
                    "flag out, or train with --optimizer=sgd"
                )
    return Recipe(
        epochs=_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        seed=_SEED.value,
        decay=_DECAY.value,
        drops=numbers("drops", _DROPS.value, int),
        drop_factor=_DROP_FACTOR.value,
        weight_decay=_WEIGHT_DECAY.value,
        momentum=0.9 if _MOMENTUM.value is None else _MOMENTUM.value,
        images=TRAIN_IMAGES.value,
        grda=(_C.value, _MU.value) if _OPTIMIZER.value == "grda" else None,
        nesterov=_NESTEROV.value is not False,
        temperature=1.0 if _TEMPERATURE.value is None else _TEMPERATURE.value,
        save_best=bool(_SAVE_BEST.value),
    )


def _values(name: str, words: list[str] | None) -> tuple[float, ...] | None:
    return None if words is None else numbers(name, words, float)


def summary(results: dict[str, Any], workdir: str) -> str:
    """The results of a run in a few lines."""
    prune, train = results["prune"], results["train"]
    final, best = (100 * train[f"{which}_accuracy"] for which in ("final", "best"))
    lines = []
    if "filters" in prune:
        left = prune["filters"]
        lines.append(f"kept {left['kept']:,} of {left['prunable']:,} filters")
    lines.append(
        f"kept {prune['kept']:,} of {prune['prunable']:,} weights; test accuracy "
        f"{final:.2f} % (best {best:.2f} %) after {train['epochs']} epochs; pruned in "
        f"{prune['seconds']:.1f} s, trained in {train['seconds']:.0f} s; files in "
        f"{workdir}"
    )
    if "shrink" in results:
        left, whole = (results["shrink"][which] for which in ("after", "before"))
        lines.append(
            f"trained the smaller network: {left['parameters']:,} of "
            f"{whole['parameters']:,} parameters, "
            f"{left['macs'] / whole['macs']:.1%} of the multiply-adds"
        )
    if prune["collapsed_layers"]:
        lines.append(f"no weight is kept in {', '.join(prune['collapsed_layers'])}")
    return "\n".join(lines)
