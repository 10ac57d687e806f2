"""Random: N(0, 1) for each weight, drawn once, so that survivors keep theirs."""

import numpy as np

from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores


def random(problem: Problem) -> Scorer:
    """Scores at random, the same for the same seed."""
    generator = np.random.default_rng(problem.seed)
    scores = {n: generator.standard_normal(w.shape) for n, w in problem.weights.items()}

    def score(masks: Masks) -> Scores:
        return scores

    return score
