"""GraSP: w (H g), with its sign; the lowest scores are removed.

To remove a weight is a step of -w. To first order, this step changes half the squared
norm of the gradient by -w (H g). So the weights with the lowest scores are those whose
removal raises the norm of the gradient most, or lowers it least. The network that is
left trains fastest. (A published implementation had the sign reversed.)

References:
  Wang, Zhang, Grosse. Picking winning tickets before training by preserving gradient
  flow. ICLR 2020. arXiv 2002.07376, equation 8.
"""

from tf_synflow.criteria.gradients import derivatives, over_total
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores

TEMPERATURE = 200.0


def grasp(problem: Problem) -> Scorer:
    """Scores by w (H g), with the logits divided by 200."""
    loss = derivatives(problem, TEMPERATURE)

    def score(masks: Masks) -> Scores:
        products = loss.hessian_gradient(masks)
        return over_total({n: problem.weights[n] * p for n, p in products.items()})

    return score
