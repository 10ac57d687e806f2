"""The weights that are left while a network is pruned, without the dead channels.

The |weights| that are left are stored as arrays. The channels that lie on no path are
taken out of these arrays, so that the linear twin computes on living channels only. A
weight that its mask still keeps but that lies on no path has score 0. Such a weight is
on the list of the dead, and ranks below all living weights.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow.channels import reachability
from tf_synflow.channels.groups import Channels, along
from tf_synflow.flow.linear_twin import Magnitudes, aligned_empty, shared_tensor
from tf_synflow.masks import lowest_products as ranking
from tf_synflow.masks.types import Masks

# Dead channels are looked for and taken out each time this share of the living weights
# is gone: often enough to compute little in vain, rarely enough to cost little.
_STALE = 0.1


class Survivors:
    """The surviving weights of a network.

    Attributes:
      arrays: Name to |w| of a weight in the living channels, 0 where it is pruned or
        dead. The flat order of an array is the order of the positions in the network.
      carried: Name to array of other weights that are cut along the channels
        (BatchNorm ...).
    """

    def __init__(
        self,
        channels: Channels,
        weights: Mapping[str, Magnitudes],
        carried: Mapping[str, np.ndarray],
        masks: Masks,
    ):
        """Takes over the weights.

        Args:
          channels: The network's channels.
          weights: Name to |w|, 0 where the mask is False. The arrays are not copied,
            and they are changed.
          carried: Name to array of other weights that carry channels.
          masks: Name to mask, True for the weights that are left.
        """
        self._channels = channels
        self._sizes = dict(channels.sizes)
        self._shapes = {name: mask.shape for name, mask in masks.items()}
        # For each axis that was cut: where the places left stand in the whole weight.
        self._places: dict[str, dict[int, np.ndarray]] = {name: {} for name in masks}
        self._dead: dict[str, np.ndarray] = {}
        self.arrays = {name: weight.array for name, weight in weights.items()}
        self.carried = dict(carried)
        self._living = {}
        for name, array in self.arrays.items():
            # Weights that are 0 from the start conduct nothing, but are still kept.
            self._dead[name] = np.flatnonzero(masks[name] & (array == 0))
            self._living[name] = int(masks[name].sum()) - self._dead[name].size
        self._fresh = sum(self._living.values())
        self._share()
        self.cut()

    def count(self, names: list[str]) -> int:
        """How many of these weights are left, dead ones included."""
        return sum(self._living[name] + self._dead[name].size for name in names)

    def remove(
        self, names: list[str], gradients: Mapping[str, np.ndarray], kept: int
    ) -> None:
        """Removes the weights with the lowest scores until `kept` weights are left.

        Args:
          names: The weights that are ranked together, in the model's order.
          gradients: Name to derivative of the flow, in the shape of `arrays[name]`.
          kept: How many of these weights to leave.
        """
        count = self.count(names) - kept
        if count <= 0:
            return
        pairs = [(gradients[n].reshape(-1), self.arrays[n].reshape(-1)) for n in names]
        living = sum(self._living[name] for name in names)
        lower, upper = ranking.guess_bounds(pairs, count / max(living, 1))
        found = ranking.products_up_to(pairs, upper)
        for name, lost in zip(names, found.lost, strict=True):
            self._bury(name, lost)
        count -= self._remove_dead(names, count)
        lowest = ranking.lowest(pairs, found, count, lower)
        for name, positions in zip(names, lowest, strict=True):
            self.arrays[name].reshape(-1)[positions] = 0
            self._living[name] -= positions.size

    def masks(self) -> Masks:
        """Name to mask of the whole weight."""
        masks = {}
        for name, shape in self._shapes.items():
            mask = np.zeros(shape, bool)
            mask.reshape(-1)[self._whole(name, np.flatnonzero(self.arrays[name]))] = (
                True
            )
            mask.reshape(-1)[self._dead[name]] = True
            masks[name] = mask
        return masks

    def cut_if_stale(self) -> None:
        """Takes out dead channels, if enough weights are gone since the last time."""
        if sum(self._living.values()) < (1 - _STALE) * self._fresh:
            self.cut()

    def cut(self) -> None:
        """Takes out the channels that lie on no path any more."""
        self._fresh = sum(self._living.values())
        kernels = self._channels.kernels
        joins = dict(
            zip(
                kernels,
                ranking.in_parallel(self._join, kernels, self._fresh),
                strict=True,
            )
        )
        living = reachability.living(self._channels, joins, self._sizes)
        for channels in living.values():
            # TensorFlow needs at least one channel; the weights of a dead one score 0.
            channels[0] |= not channels.any()
        if all(channels.all() for channels in living.values()):
            return
        for name in self._channels.axes:
            if name in self.arrays or name in self.carried:
                self._cut_weight(name, living)
        self._sizes = {g: int(channels.sum()) for g, channels in living.items()}
        self._share()

    def _join(self, name: str) -> np.ndarray:
        """Boolean matrix (channels in, channels out): whether a weight joins them."""
        array = self.arrays[name]
        into, out = self._channels.kernels[name]
        taps = array.reshape(-1, *array.shape[-2:])
        join = taps[0] > 0
        for tap in taps[1:]:
            join |= tap > 0
        return join if (into, out) == (-2, -1) else join.T.copy()

    def _cut_weight(self, name: str, living: Mapping[int, np.ndarray]) -> None:
        """Takes dead channels out of one weight."""
        prunable = name in self.arrays
        array = self.arrays[name] if prunable else self.carried[name]
        alive = {
            axis: along(groups, living)
            for axis, groups in self._channels.axes[name].items()
        }
        alive = {axis: flags for axis, flags in alive.items() if not flags.all()}
        if not alive:
            return
        if prunable:
            self._bury(name, self._in_dead_channels(array, alive))
        places = {axis: np.flatnonzero(flags) for axis, flags in alive.items()}
        smaller = _take(array, places)
        if not prunable:
            self.carried[name] = smaller
            return
        self.arrays[name] = smaller
        for axis, own in places.items():
            before = self._places[name].get(axis)
            self._places[name][axis] = own if before is None else before[own]

    @staticmethod
    def _in_dead_channels(array: np.ndarray, alive: Mapping) -> np.ndarray:
        """Flat positions of the entries above 0 in dead channels."""
        dead = []
        for axis, flags in alive.items():
            places = np.flatnonzero(~flags)
            inside = np.nonzero(np.take(array, places, axis))
            index = list(inside)
            index[axis] = places[inside[axis]]
            dead.append(np.ravel_multi_index(index, array.shape))
        return np.unique(np.concatenate(dead))

    def _bury(self, name: str, positions: np.ndarray) -> None:
        """Puts living weights on the list of the dead."""
        if positions.size:
            whole = self._whole(name, positions)
            self._dead[name] = np.sort(np.concatenate([self._dead[name], whole]))
            self._living[name] -= positions.size
            self.arrays[name].reshape(-1)[positions] = 0

    def _remove_dead(self, names: list[str], count: int) -> int:
        """Removes up to `count` dead weights, the last first; returns their number."""
        left = count
        for name in reversed(names):
            kept = max(self._dead[name].size - left, 0)
            left -= self._dead[name].size - kept
            self._dead[name] = self._dead[name][:kept]
        return count - left

    def _whole(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Flat positions in the whole weight, from those in the array that is left."""
        if not self._places[name]:
            return positions
        index = list(np.unravel_index(positions, self.arrays[name].shape))
        for axis, places in self._places[name].items():
            index[axis] = places[index[axis]]
        return np.ravel_multi_index(index, self._shapes[name])

    def _share(self) -> None:
        """Makes tensors that share the memory of the arrays, and see their changes."""
        self.tensors: dict[str, Any] = {
            name: shared_tensor(array)
            for name, array in {**self.arrays, **self.carried}.items()
        }


def _take(array: np.ndarray, places: Mapping[int, np.ndarray]) -> np.ndarray:
    """The array with only these places along one or both of its last two axes."""
    shape = list(array.shape)
    for axis, own in places.items():
        shape[axis] = own.size
    smaller = aligned_empty(tuple(shape), array.dtype)
    rows, columns = places.get(-2), places.get(-1)
    if array.ndim == 1:
        smaller[...] = array[columns]
        return smaller

    def fill(tap: tuple[int, ...]) -> None:
        part = array[tap] if rows is None else array[tap][rows]
        # "clip" lets numpy write in place; no place is out of range.
        if columns is None:
            smaller[tap] = part
        else:
            np.take(part, columns, 1, out=smaller[tap], mode="clip")

    ranking.in_parallel(fill, np.ndindex(array.shape[:-2]), array.size)
    return smaller
