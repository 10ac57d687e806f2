"""Loss preservation: |w g|, with a temperature.

Along gradient flow, pruning the weights with the lowest |w g| keeps the loss where it
is. The score is SNIP's, with the logits divided by T = 5.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839, section 4.2.
"""

import numpy as np

from tf_synflow.criteria.gradients import derivatives, over_total
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores

TEMPERATURE = 5.0


def loss_preservation(problem: Problem) -> Scorer:
    """Scores by |w g|, g the gradient of the mean loss at T = 5."""
    loss = derivatives(problem, TEMPERATURE)

    def score(masks: Masks) -> Scores:
        gradients = loss.gradient(masks)
        return over_total(
            {n: np.abs(problem.weights[n] * g) for n, g in gradients.items()}
        )

    return score
