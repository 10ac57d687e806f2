"""SNIP: |w g|, how much the loss changes, to first order, if a weight is removed.

References:
  Lee, Ajanthan, Torr. SNIP: Single-shot network pruning based on connection
  sensitivity. ICLR 2019. arXiv 1810.02340, equation 6.
"""

import numpy as np

from tf_synflow.criteria.gradients import derivatives, over_total
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores


def snip(problem: Problem) -> Scorer:
    """Scores by |w g|, g the gradient of the loss over all data."""
    loss = derivatives(problem)

    def score(masks: Masks) -> Scores:
        gradients = loss.gradient(masks)
        return over_total(
            {n: np.abs(problem.weights[n] * g) for n, g in gradients.items()}
        )

    return score
