"""Magnitude: |w|, the oldest criterion and the simplest baseline."""

import numpy as np

from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores


def magnitude(problem: Problem) -> Scorer:
    """Scores by the absolute value of each weight."""
    magnitudes = {n: np.abs(w.astype("float64")) for n, w in problem.weights.items()}

    def score(masks: Masks) -> Scores:
        return {name: w * masks[name] for name, w in magnitudes.items()}

    return score
