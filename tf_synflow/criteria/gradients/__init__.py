"""Gradients and Hessian-gradient products of the loss, for the criteria with data.

Both are computed in a tf_keras copy of the network. So the modules here import
tf_keras, and `derivatives` imports these modules only when it is called.
"""

import warnings
from typing import Any

from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Scores


def derivatives(problem: Problem, temperature: float = 1.0) -> Any:
    """The `Derivatives` of a problem; its constructor has the arguments and errors."""
    from tf_synflow.criteria.gradients.derivatives import Derivatives

    return Derivatives(problem, temperature)


def over_total(scores: Scores) -> Scores:
    """Scores divided by their total, so that different scores can be compared.

    Signed scores are divided by the absolute value of their total. A negative total
    would reverse the order of the scores, and with it the choice of weights to prune.
    """
    total = abs(sum(float(score.sum()) for score in scores.values()))
    if not total > 0:
        if not any(score.any() for score in scores.values()):
            warnings.warn(
                "all scores are 0: no weight has a gradient on this data, so weights "
                "are removed by their position",
                stacklevel=2,
            )
        return scores
    return {name: score / total for name, score in scores.items()}
