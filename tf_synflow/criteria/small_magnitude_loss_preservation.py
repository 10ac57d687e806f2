"""Loss preservation that favours large weights: |w| |w g|.

Small weights are removed first, as in magnitude pruning, unless the loss depends on
them. The score is |w| times that of loss preservation, with the same temperature.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839, section 4.2 ("biased loss").
"""

from tf_synflow.criteria.gradients import derivatives, over_total
from tf_synflow.criteria.loss_preservation import TEMPERATURE
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores


def small_magnitude_loss_preservation(problem: Problem) -> Scorer:
    """Scores by |w| |w g|, g the gradient of the mean loss at T = 5."""
    loss = derivatives(problem, TEMPERATURE)

    def score(masks: Masks) -> Scores:
        gradients = loss.gradient(masks)
        weights = problem.weights
        return over_total(
            {n: abs(weights[n]) * abs(weights[n] * g) for n, g in gradients.items()}
        )

    return score
