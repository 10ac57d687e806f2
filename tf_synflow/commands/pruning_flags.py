"""The flags for how to prune that `prune` and `train` share."""

from absl import flags

from tf_synflow.masks.counts import SCOPES

RATIO = flags.DEFINE_float(
    "ratio",
    None,
    "1 or more: the compression ratio, prunable weights over kept weights. Below 1: "
    "the fraction of the prunable weights to remove.",
    required=True,
)
ITERATIONS = flags.DEFINE_integer(
    "iterations",
    None,
    "Number of times to score and remove. Default: 100 for synflow, 1 for the others.",
)
SCOPE = flags.DEFINE_enum(
    "scope",
    "global",
    SCOPES,
    "global ranks all weights together; local prunes each weight tensor to the ratio.",
)
