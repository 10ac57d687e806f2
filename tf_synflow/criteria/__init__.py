"""How weights are scored: one small file a criterion.

A criterion is a function from a `Problem` to a scorer; a scorer is a function from
masks (the survivors) to scores. The lowest scores are removed.
"""

from collections.abc import Callable

from tf_synflow.criteria.custom import CustomCriterion, custom
from tf_synflow.criteria.gradient_norm_preservation import gradient_norm_preservation
from tf_synflow.criteria.grasp import grasp
from tf_synflow.criteria.loss_preservation import loss_preservation
from tf_synflow.criteria.magnitude import magnitude
from tf_synflow.criteria.problem import Problem
from tf_synflow.criteria.random import random
from tf_synflow.criteria.small_magnitude_loss_preservation import (
    small_magnitude_loss_preservation,
)
from tf_synflow.criteria.snip import snip
from tf_synflow.criteria.synflow import FlowScores, synflow, synflow_loop
from tf_synflow.masks.types import Scorer

Criterion = Callable[[Problem], Scorer]

CRITERIA: dict[str, Criterion] = {
    "synflow": synflow,
    "magnitude": magnitude,
    "random": random,
    "snip": snip,
    "grasp": grasp,
    "loss_preservation": loss_preservation,
    "small_magnitude_loss_preservation": small_magnitude_loss_preservation,
    "gradient_norm_preservation": gradient_norm_preservation,
}

# The criteria that need no data.
DATA_FREE = ("synflow", "magnitude", "random")

# Criteria that have a loop of their own, faster than scoring and masking in turn.
LOOPS = {"synflow": synflow_loop}

DEFAULT_ITERATIONS = {"synflow": 100}  # 1 for the others

__all__ = [
    "CRITERIA",
    "DATA_FREE",
    "DEFAULT_ITERATIONS",
    "LOOPS",
    "Criterion",
    "FlowScores",
    "CustomCriterion",
    "Problem",
    "custom",
]
