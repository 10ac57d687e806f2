"""Random: each weight has a score from N(0, 1), drawn once for all iterations."""

import numpy as np

from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores


def random(problem: Problem) -> Scorer:
    """Scores at random; the same seed gives the same scores."""
    generator = np.random.default_rng(problem.seed)
    scores = {n: generator.standard_normal(w.shape) for n, w in problem.weights.items()}

    def score(masks: Masks) -> Scores:
        return scores

    return score
