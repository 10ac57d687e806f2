"""Pruning weight by weight."""

from fractions import Fraction
from typing import Any

import numpy as np

from tf_synflow.criteria import CRITERIA, DEFAULT_ITERATIONS, LOOPS, Problem, custom
from tf_synflow.masks.counts import check_reach, plan, pruned_fraction
from tf_synflow.masks.selection import inverted, iterate
from tf_synflow.masks.types import Masks, Plan, Scorer, Scores
from tf_synflow.policy.collapse import notice
from tf_synflow.policy.dense import ratio_of_prunable, warn_of_dense
from tf_synflow.policy.progress import progress_bar


class WeightTask:
    """A network and how its weights are to be pruned; made by `PruningPolicy.prepare`.

    Attributes:
      problem: The network, and the weights to score.
      start: Name to mask: the weights that are kept now.
    """

    def __init__(self, problem: Problem, policy: Any):
        """Takes over the weights to score and the masks to begin from.

        Args:
          problem: The network, and the weights to score.
          policy: The `PruningPolicy`.
        """
        self.problem = problem
        self.start = masks_now(problem)
        self._policy = policy

    def check(self, ratio: float) -> None:
        """Raises the errors that `masks` raises before it computes scores."""
        ratio = self._of_prunable(ratio)
        check_reach(self.start, ratio, self._policy.scope)
        if pruned_fraction(ratio):
            self.prepare_scores()

    def score(self) -> Scores:
        """The score of every weight, once; see `PruningPolicy.score`."""
        return self.prepare_scores()(self.start)

    def masks(self, ratio: float) -> Masks:
        """The weights to keep; see `PruningPolicy.masks`."""
        policy = self._policy
        ratio = self._of_prunable(ratio)
        removed = pruned_fraction(ratio)
        check_reach(self.start, ratio, policy.scope)
        if removed == 0:
            return self.start
        if policy.layer_types is None and policy.ratio_of == "prunable":
            problem = self.problem
            warn_of_dense(problem.network, problem.weights, problem.exclude)
        steps = plan(
            self.start, ratio, policy.iterations, policy.schedule, policy.scope
        )
        new = self._carried_out(steps)
        notice(self.problem, self.start, new, policy.on_collapse, self._advice())
        return new

    def _of_prunable(self, ratio: float) -> float | Fraction:
        """The ratio of the prunable weights, from the ratio that was asked for."""
        if self._policy.ratio_of == "prunable" or not pruned_fraction(ratio):
            return ratio
        sizes = {name: mask.size for name, mask in self.start.items()}
        return ratio_of_prunable(self.problem.network, sizes, ratio)

    def _advice(self) -> str:
        """What to do if pruning has cut an output off from the input."""
        policy, own = self._policy, DEFAULT_ITERATIONS["synflow"]
        if policy.criterion_name != "synflow" or policy.invert:
            without = " without invert" if policy.invert else ""
            return (
                f'take a lower ratio, or criterion="synflow"{without}, which keeps a '
                "path"
            )
        if policy.iterations < own:
            return f"take a lower ratio, or more iterations (SynFlow's own are {own})"
        other = ', or scope="global"' if policy.scope == "local" else ""
        return f"take a lower ratio{other}"

    def prepare_scores(self) -> Scorer:
        """The function from masks to scores; raises errors known before scoring."""
        name = self._policy.criterion_name
        criterion = CRITERIA[name] if name else custom(self._policy.criterion)
        scorer = criterion(self.problem)
        return inverted(scorer) if self._policy.invert else scorer

    def _carried_out(self, steps: Plan) -> Masks:
        policy = self._policy
        what = getattr(policy.criterion, "__name__", policy.criterion)
        bar = progress_bar(f"pruning ({what})", "iteration", policy.progress)
        if policy.criterion_name in LOOPS and not policy.invert:
            loop = LOOPS[policy.criterion_name]
            return loop(self.problem, self.start, steps, bar)
        return iterate(self.prepare_scores(), self.start, steps, bar)


def masks_now(problem: Problem) -> Masks:
    """The masks of the weights to score: those of the network, or all True."""
    now = problem.network.masks
    return {
        name: now.get(name, np.ones(weight.shape, bool))
        for name, weight in problem.weights.items()
    }
