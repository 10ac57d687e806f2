"""A criterion of the user's own: a function from model and data to scores."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.criteria.problem import Problem
from tf_synflow.masks.types import Masks, Scorer, Scores

CustomCriterion = Callable[[Any, Any], Mapping[str, np.ndarray]]


def custom(function: CustomCriterion) -> Callable[[Problem], Scorer]:
    """Makes a criterion from a function of the user's own.

    Args:
      function: A function `(model, data) -> {weight name: scores}`. It gets the user's
        data as they are, and an uncompiled copy of the model, in which pruned weights
        are 0. The function may change the copy. It returns, for every prunable weight,
        an array of the weight's shape. The weights with the lowest scores are removed.
    """

    def criterion(problem: Problem) -> Scorer:
        adapter = frameworks.adapter_of(problem.network.model)
        model, variables = adapter.rebuild(problem.network, {})
        initial = model.get_weights()

        def score(masks: Masks) -> Scores:
            model.set_weights(initial)  # whatever the function did to them
            for name, weight in problem.weights.items():
                variables[name].assign(weight * masks[name])
            return _checked(function, function(model, problem.data), problem.weights)

        return score

    return criterion


def _checked(
    function: CustomCriterion, scores: Any, weights: Mapping[str, np.ndarray]
) -> Scores:
    """The scores as float64 arrays in the model's order."""
    what = f"the criterion {getattr(function, '__name__', repr(function))}"
    if not isinstance(scores, Mapping):
        raise TypeError(
            f"{what} must return a dictionary of weight names to arrays, got "
            f"{type(scores).__name__}"
        )
    missing = [name for name in weights if name not in scores]
    unknown = [name for name in scores if name not in weights]
    if missing or unknown:
        raise ValueError(
            f"{what} must return scores for exactly the prunable weights "
            f"{list(weights)}; missing are {missing}, not among them are {unknown}"
        )
    checked = {}
    for name, weight in weights.items():
        score = np.asarray(scores[name], "float64")
        if score.shape != weight.shape:
            raise ValueError(
                f"{what} returned scores of shape {score.shape} for {name!r}, whose "
                f"shape is {weight.shape}"
            )
        if not np.isfinite(score).all():
            raise ValueError(
                f"{what} returned NaN or infinite scores for {name!r}; a ranking of "
                "them would mean nothing"
            )
        checked[name] = score
    return checked
