"""What a run is to do: how to prune, and where."""

import dataclasses

from tf_synflow.checks import check_count
from tf_synflow.criteria import DEFAULT_ITERATIONS
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.pruning.filter_rounds import Counting


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How a network is pruned, and what is done to it then.

    Attributes:
      ratio: See `PruningPolicy.masks`.
      policy: How to prune.
      images: How many random training images a criterion that needs data gets. Defaults
        to ten times the classes.
      levels: If above 0, so many levels of training, pruning and rewinding come before;
        see `prune_with_rewinding`. Defaults to 0.
      rounds: If above 0, filters are pruned in so many rounds, an epoch of training at
        the first learning rate before each; see `prune_filters`. What is trained then,
        and written as `model.keras`, is the smaller network. Defaults to 0.
      counting: Of rounds: what counts; see `prune_filters`.
      shuffle: An ablation: shuffles each mask within its weight tensor.
      reinitialise: An ablation: draws the weights anew.
      shrink: Trains the smaller network that `shrink` gives. Defaults to False.
      multiple_of: Of the channels of that; see `shrink`. Defaults to 1.
    """

    ratio: float
    policy: PruningPolicy
    images: int | None = None
    levels: int = 0
    rounds: int = 0
    counting: Counting = Counting()  # noqa: RUF009 (it cannot be changed)
    shuffle: bool = False
    reinitialise: bool = False
    shrink: bool = False
    multiple_of: int = 1

    def check(self) -> None:
        """Refuses what does not go together.

        Raises:
          TypeError: `multiple_of` is no whole number.
          ValueError: With the two.
        """
        both = [
            name
            for name in ("levels", "shuffle", "reinitialise", "shrink")
            if getattr(self, name)
        ]
        if self.rounds and both:
            raise ValueError(
                f"rounds train the network that they shrink, so {both[0]} has no place"
            )
        check_count("multiple_of", self.multiple_of)
        if self.multiple_of > 1 and not self.shrink:
            raise ValueError("multiple_of has no effect without shrink=True")
        if self.shuffle and self.policy.granularity == "filter":
            raise ValueError(
                "shuffled within a tensor, masks are of no filters any more"
            )
        if self.rounds and self.policy.granularity != "filter":
            raise ValueError('rounds prune filters: they want granularity "filter"')
        if any(self.counting) and not self.rounds:
            raise ValueError(
                "zero_added and whole_percents are of rounds: give rounds=1 or more"
            )
        usual = DEFAULT_ITERATIONS.get(str(self.policy.criterion), 1)
        if (self.levels or self.rounds) and self.policy.iterations != usual:
            raise ValueError(
                "levels and rounds score once each, so iterations have no place"
            )
        if self.rounds and self.policy.schedule != "exponential":
            raise ValueError("rounds follow the paper, so a schedule has no place")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run finds its data, and on what it is trained.

    Attributes:
      data_dir: See `data.load`.
      download: See `data.load`.
      distribute: See `distribution.strategy`.
      precision: See `distribution.precision`.
      mean: Of each channel, subtracted from images within 0 and 1; see
        `Dataset.scaled_by`. Defaults to the data set's own.
      std: What they are divided by then. Defaults to the data set's own.
    """

    data_dir: str | None = None
    download: bool = True
    distribute: str = "none"
    precision: str = "float32"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
