"""Settings of a run: how to prune, where the data is, and where to train."""

import dataclasses

from tf_synflow.checks import check_count
from tf_synflow.criteria import DEFAULT_ITERATIONS
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.pruning.filter_rounds import Counting


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How a network is pruned, and what is done to it afterwards.

    Attributes:
      ratio: See `PruningPolicy.masks`.
      policy: How to prune.
      images: Number of random training images for a criterion that needs data. Defaults
        to None: ten times the number of classes.
      levels: Number of levels of training, pruning and rewinding before the final
        training; see `prune_with_rewinding`. Defaults to 0.
      rounds: Number of rounds in which filters are pruned. Each round begins with an
        epoch of training at the first learning rate; see `prune_filters`. After all
        rounds, the smaller network is trained, and written as `model.keras`. Defaults
        to 0.
      counting: For rounds: which filters count, and how; see `prune_filters`.
      shuffle: An ablation: shuffles each mask within its weight tensor.
      reinitialise: An ablation: draws new weights.
      shrink: Trains the smaller network that `shrink` gives. Defaults to False.
      multiple_of: The widths of the smaller network are multiples of this number; see
        `shrink`. Defaults to 1.
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
        """Refuses settings that cannot be combined.

        Raises:
          TypeError: `multiple_of` is no whole number.
          ValueError: Two settings cannot be combined; the error names them.
        """
        both = [
            name
            for name in ("levels", "shuffle", "reinitialise", "shrink")
            if getattr(self, name)
        ]
        if self.rounds and both:
            raise ValueError(
                f"rounds={self.rounds} cannot be combined with {both[0]}: each round "
                "already trains and shrinks the network"
            )
        check_count("multiple_of", self.multiple_of)
        if self.multiple_of > 1 and not self.shrink:
            raise ValueError(
                f"multiple_of={self.multiple_of} has no effect without shrink=True"
            )
        if self.shuffle and self.policy.granularity == "filter":
            raise ValueError(
                "shuffle cannot be combined with granularity=filter: shuffled masks "
                "no longer remove whole filters"
            )
        if self.rounds and self.policy.granularity != "filter":
            raise ValueError(
                f"rounds={self.rounds} needs granularity=filter, got "
                f"granularity={self.policy.granularity}"
            )
        if any(self.counting) and not self.rounds:
            raise ValueError(
                "zero_added and whole_percents are of rounds: give rounds=1 or more"
            )
        usual = DEFAULT_ITERATIONS.get(str(self.policy.criterion), 1)
        if (self.levels or self.rounds) and self.policy.iterations != usual:
            raise ValueError(
                f"iterations={self.policy.iterations} cannot be combined with levels "
                "or rounds: each of them scores once"
            )
        if self.rounds and self.policy.schedule != "exponential":
            raise ValueError(
                f"schedule={self.policy.schedule} cannot be combined with rounds, "
                "which follow the schedule of the paper"
            )


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run finds its data, and on which devices it trains.

    Attributes:
      data_dir: See `data.load`.
      download: See `data.load`.
      distribute: See `distribution.strategy`.
      precision: See `distribution.precision`.
      mean: Mean of each channel, subtracted from images within 0 and 1; see
        `Dataset.scaled_by`. Defaults to None: the data set's own.
      std: Standard deviation of each channel, by which the images are divided then.
        Defaults to None: the data set's own.
    """

    data_dir: str | None = None
    download: bool = True
    distribute: str = "none"
    precision: str = "float32"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
