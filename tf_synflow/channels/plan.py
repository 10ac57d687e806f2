"""ChannelPlan: which channels of a network are alive, kept and cut."""

import numpy as np

from tf_synflow.channels import needed
from tf_synflow.channels.groups import Channels, along
from tf_synflow.channels.heads import find_heads
from tf_synflow.channels.kept import find_kept
from tf_synflow.masks.types import Masks
from tf_synflow.network import Call, Network

# Name of a weight to {axis, counted from the end: the places along it that are kept},
# for the axes that lose places.
Cuts = dict[str, dict[int, np.ndarray]]


class ChannelPlan:
    """What `shrink` takes out of a network.

    A worked example: in this network nothing is kept of `b/kernel[..., 1, :]`, so no
    layer reads channel 1 of "a".

        input (8, 8, 1) -> Conv2D "a", 4 filters -> ReLU -> Conv2D "b", 3 filters
                        -> GlobalAveragePooling2D -> Dense "fc", 2 units

        >>> ChannelPlan(network)
        ChannelPlan of 'net': 8 of 9 channels are alive, 8 are kept
          a/kernel axis -1, a/bias axis -1, b/kernel axis -2: 3 of 4 alive, 3 kept
          b/kernel axis -1, b/bias axis -1, fc/kernel axis -2: 3 of 3 alive, 3 kept
          fc/kernel axis -1, fc/bias axis -1: 2 of 2 alive, 2 kept

    Attributes:
      network: The network.
      channels: Its groups of channels.
      alive: Group to boolean vector: the channels on a path from input to output.
      kept: Group to boolean vector: the channels that stay, alive or not.
      sizes: Number of a tensor to how many of its channels stay.
      cuts: See `Cuts`.
      heads: Name of an attention layer to its heads and units that stay.
      unfed: Number of channels that are cut though they are read: nothing feeds them.
    """

    def __init__(self, network: Network, multiple_of: int = 1):
        """Finds the channels that are alive, and dead channels that are kept too.

        Args:
          network: The network; if it has no masks, weights that are 0 count as pruned.
          multiple_of: See `shrink`. Defaults to 1.
        """
        channels = Channels(network, set(network.weights), needed.rule_of)
        for number in network.outputs:
            channels.hold(channels.signals[number])
        self.network, self.channels = network, channels
        self.kept, self.alive, self.unfed = find_kept(network, channels, multiple_of)
        self.sizes = {
            number: int(along(groups, self.kept).sum())
            for number, groups in channels.signals.items()
        }
        # Rows of kernels that read channels which are dead but kept. These rows are
        # masked. Otherwise training could bring such a channel to life in the small
        # network only, and not in the whole one.
        self._idle = {
            name: (into, ~along(groups, self.alive)[along(groups, self.kept)])
            for name, (into, _) in channels.kernels.items()
            for groups in [channels.axes[name][into]]
        }
        self.heads = {
            name: heads
            for name, call in network.layers().items()
            if (heads := find_heads(network, call)) is not None
        }
        self.cuts: Cuts = {}
        for name, axes in channels.axes.items():
            stay = {axis: along(groups, self.kept) for axis, groups in axes.items()}
            cut = {a: np.flatnonzero(s) for a, s in stay.items() if not s.all()}
            if cut and name in network.weights:
                self.cuts[name] = cut

    def masks(self) -> Masks:
        """The masks of the smaller network."""
        masks = self.network.masks
        smaller = {name: self.cut(name, mask) for name, mask in masks.items()}
        for name, (into, idle) in self._idle.items():
            if name in smaller:
                np.moveaxis(smaller[name], into, -1)[..., idle] = False
        return smaller

    def whole_masks(self, masks: Masks) -> Masks:
        """Masks of the smaller network as masks of the whole one.

        Args:
          masks: Name to mask of the weights of the smaller network.

        Returns:
          Name to mask of the weights of the whole network, False where they were cut.
        """
        whole = {}
        for name, mask in masks.items():
            whole[name] = np.zeros(self.network.weights[name].shape, bool)
            whole[name][self.places(name, whole[name].shape)] = mask
        return whole

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of each weight of the smaller network."""
        weights = self.network.weights
        return {n: self.shape(n, tuple(v.shape)) for n, v in weights.items()}

    def cut(self, name: str, array: np.ndarray) -> np.ndarray:
        """What is left of a weight, or of its mask."""
        return array[self.places(name, array.shape)]

    def places(self, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """An index of what is left of a weight."""
        if (index := self._places_in_heads(name, shape)) is not None:
            return index
        cut = self.cuts.get(name, {})
        rank = len(shape)
        every = [cut.get(a - rank, np.arange(n)) for a, n in enumerate(shape)]
        return np.ix_(*every) if every else ()

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is left of a weight."""
        if (index := self._places_in_heads(name, shape)) is not None:
            return np.broadcast_shapes(*(places.shape for places in index))
        cut = self.cuts.get(name, {})
        rank = len(shape)
        return tuple(
            cut[a - rank].size if a - rank in cut else n for a, n in enumerate(shape)
        )

    def _places_in_heads(self, name: str, shape: tuple[int, ...]) -> tuple | None:
        """The index of what is left of a weight, if its layer loses heads or units."""
        call = self.network.owners.get(name)
        if call is None or call.name not in self.heads:
            return None
        return self.heads[call.name].places(name.removeprefix(f"{call.name}/"), shape)

    def loses_weights(self, call: Call) -> bool:
        """Whether any weight of a layer is cut."""
        return call.name in self.heads or any(
            f"{call.name}/{short}" in self.cuts for short in call.weights
        )

    def __repr__(self) -> str:
        """A line for each group that a weight carries."""
        carriers: dict[int, list[str]] = {}
        for name, axes in self.channels.axes.items():
            for axis, groups in axes.items():
                for group in dict.fromkeys(groups):
                    carriers.setdefault(group, []).append(f"{name} axis {axis}")
        lines, sums = [], np.zeros(3, int)
        for group, names in carriers.items():
            alive, kept = self.alive[group], self.kept[group]
            counts = int(alive.sum()), alive.size, int(kept.sum())
            if group in self.channels.held and names[0].endswith("axis -2"):
                continue  # the input's channels
            sums += counts
            lines.append(
                f"  {', '.join(names)}: {counts[0]:,} of {counts[1]:,} alive, "
                f"{counts[2]:,} kept"
            )
        head = (
            f"ChannelPlan of {self.network.name!r}: {sums[0]:,} of {sums[1]:,} "
            f"channels are alive, {sums[2]:,} are kept"
        )
        return "\n".join([head, *lines])
