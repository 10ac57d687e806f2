"""Pruning by whole filters."""

from collections.abc import Mapping
from typing import Any

from tf_synflow.criteria import Problem
from tf_synflow.masks.counts import plan, pruned_fraction
from tf_synflow.masks.selection import inverted, iterate
from tf_synflow.masks.types import Masks, Plan, Scorer, Scores
from tf_synflow.policy.by_weight import masks_now
from tf_synflow.policy.filters import (
    MOST_OF_A_LAYER,
    Filters,
    check_filter_reach,
    least,
    never_less,
)
from tf_synflow.policy.progress import progress_bar


class FilterTask:
    """A network and how its filters are to be pruned; made by `PruningPolicy.prepare`.

    Attributes:
      problem: The network, and the weights to score.
      start: Name to mask: the weights that are kept now.
      filters: The filters that may be pruned.
      fewest: Name of a kernel to the least number of filters that it keeps.
    """

    def __init__(self, problem: Problem, policy: Any, zero: bool = False):
        """Finds the filters.

        Args:
          problem: The network, and the weights to score.
          policy: The `PruningPolicy`.
          zero: Whether all filters count, and filters that are added to those of other
            layers can be zeroed. A layer then keeps at least one filter. Defaults to
            False.

        Raises:
          ValueError: No filter may be pruned.
        """
        self.problem = problem
        self.start = masks_now(problem)
        self.filters = Filters(problem.network, set(problem.weights), zero)
        self.fewest = least(self.filters.sizes)
        self._why = f"no layer loses more than {MOST_OF_A_LAYER:.0%} of them"
        if zero:
            sizes, fixed = self.filters.sizes, self.filters.fixed
            self.fewest = {n: sizes[n] if n in fixed else 1 for n in sizes}
            self._why = "one of each layer, and all that cannot be zeroed"
        self._policy = policy

    @property
    def standing(self) -> Masks:
        """Name of a kernel to boolean vector: the filters that are left now."""
        return self.filters.standing(self.start)

    def check(self, ratio: float) -> None:
        """Raises the errors that `masks` raises before it computes scores."""
        self._plan(ratio)
        self.prepare_scores()

    def score(self) -> Scores:
        """The score of every filter, once; see `PruningPolicy.score`."""
        return self.prepare_scores()(self.standing)

    def masks(self, ratio: float) -> Masks:
        """The weights to keep; see `PruningPolicy.masks`."""
        left = self.left(self._plan(ratio), self.fewest)
        return self.filters.weight_masks(left, self.start)

    def left(self, steps: Plan, fewest: Mapping[str, int]) -> Masks:
        """The filters that are left when a plan for filters is carried out.

        Args:
          steps: The plan.
          fewest: Name of a kernel to the least number of filters that it keeps.
        """
        policy = self._policy
        bar = progress_bar(
            f"pruning filters ({policy.criterion})", "iteration", policy.progress
        )
        scorer = never_less(self.prepare_scores(), fewest)
        return iterate(scorer, self.standing, steps, bar)

    def prepare_scores(self) -> Scorer:
        """The function from masks to scores; raises errors known before scoring."""
        name = self._policy.criterion_name
        scorer = self.filters.scorer(self.problem, name, self.start)
        return inverted(scorer) if self._policy.invert else scorer

    def _plan(self, ratio: float) -> Plan:
        policy = self._policy
        pruned_fraction(ratio)
        steps = plan(
            self.standing, ratio, policy.iterations, policy.schedule, policy.scope
        )
        check_filter_reach(steps, self.standing, self.fewest, self._why)
        return steps
