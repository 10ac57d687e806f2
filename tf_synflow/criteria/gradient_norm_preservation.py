"""Gradient-norm preservation: |w (H g)|.

This is GraSP's score without its sign. The weights that are removed are those that
change the norm of the gradient least, up or down. So pruning changes the training that
follows as little as possible.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839, section 4.3.
"""

import numpy as np

from tf_synflow.criteria.gradients import derivatives, over_total
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores


def gradient_norm_preservation(problem: Problem) -> Scorer:
    """Scores by |w (H g)|, at T = 1."""
    changes = gradient_norm_changes(problem)

    def score(masks: Masks) -> Scores:
        return over_total({n: np.abs(c) for n, c in changes(masks).items()})

    return score


def gradient_norm_changes(problem: Problem) -> Scorer:
    """The products w (H g): a filter's score is the absolute value of their sum."""
    loss = derivatives(problem)

    def score(masks: Masks) -> Scores:
        products = loss.hessian_gradient(masks)
        return {n: problem.weights[n] * p for n, p in products.items()}

    return score
