"""Which channels stay when a network is shrunk: the alive ones, and some beside them.

Dead channels stay where TensorFlow, or the caller, wants another number of them than
live. Such a channel must not come to life as the small network is trained: the whole
one, into which the weights are put back, has neighbours of it that the small one has
not. Masks see to that. A dead channel that no mask keeps dead counts as alive.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.channels.groups import Axis, Channels, fewer, more
from tf_synflow.channels.needed import find_sources, strided_1x1
from tf_synflow.channels.reachability import reached
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network

# In TensorFlow 2.21 the gradient of a strided 1x1 convolution by its kernel writes past
# the end of its memory, on the CPU in float32, unless a multiple of these go in.
_STRIDED = 16

# Group to boolean vector, one flag for each of its channels.
Flags = dict[int, np.ndarray]


class Kept(NamedTuple):
    """The channels of a network.

    Attributes:
      kept: Those that stay.
      alive: Those of them that live: they are fed, and read.
      unfed: How many are read, though nothing feeds them.
    """

    kept: Flags
    alive: Flags
    unfed: int


def find_kept(network: Network, channels: Channels, multiple_of: int) -> Kept:
    """Finds the channels that stay.

    Args:
      network: The network; if it is stripped, weights that are 0 count as pruned.
      channels: Its channels, found with `needed.rule_of`.
      multiple_of: See `shrink`.
    """
    masks = network.masks
    joins = {
        name: _joined(name, axes, network.weights[name], masks)
        for name, axes in channels.kernels.items()
    }
    first = {group: bundle[0] for bundle in channels.bundles for group in bundle}
    strided = [
        tuple(first[group] for group in channels.signals[call.inputs[0]])
        for call in network.calls
        if strided_1x1(call)
    ]
    loose = {
        group
        for name, (into, _) in channels.kernels.items()
        if name not in masks
        for group in channels.axes[name][into]
    }
    sources, unfed = find_sources(network, channels), None
    awake = {group: np.zeros(size, bool) for group, size in channels.sizes.items()}
    while True:
        start = {group: sources[group] | awake[group] for group in awake}
        fed, read = reached(channels, joins, channels.sizes, start, awake)
        alive = {group: fed[group] & read[group] for group in fed}
        if unfed is None:
            lost = {group: read[group] & ~fed[group] for group in fed}
            unfed = sum(
                int((_any(lost, bundle) & ~_any(alive, bundle)).sum())
                for bundle in channels.bundles
            )
        one = {bundle[0]: _any(alive, bundle) for bundle in channels.bundles}
        # First those that nothing feeds or reads: they wake nothing up.
        order = {b[0]: _least_first(b, fed, read) for b in channels.bundles}
        _keep_some(one, order, strided, multiple_of)
        kept = {
            group: more(one[first[group]], size)
            for group, size in channels.sizes.items()
        }
        waking = _waking(channels, kept, alive, loose)
        if not any(flags.any() for flags in waking.values()):
            return Kept(kept, alive, unfed)
        for group, flags in waking.items():
            awake[group] |= flags


def _any(flags: Flags, bundle: tuple[int, ...]) -> np.ndarray:
    """The channels of a bundle of which any group has True."""
    size = _size(flags, bundle)
    return np.any([fewer(flags[group], size) for group in bundle], 0)


def _size(flags: Flags, bundle: tuple[int, ...]) -> int:
    """The number of channels that can be taken out of a bundle one by one."""
    return math.gcd(*(flags[group].size for group in bundle))


def _least_first(bundle: tuple[int, ...], fed: Flags, read: Flags) -> np.ndarray:
    size = _size(fed, bundle)
    count = np.zeros(size, int)
    for group in bundle:
        count += fewer(fed[group], size)
        count += fewer(read[group], size)
    return np.argsort(count, kind="stable")


def _waking(channels: Channels, kept: Flags, alive: Flags, loose: set[int]) -> Flags:
    """Dead channels that are kept, and that training can bring to life.

    No mask keeps a kernel from reading them, or they are part of a signal that lives.
    """
    waking = {group: kept[group] & ~alive[group] for group in loose}
    for link in channels.links:
        for group in link.inputs:
            flags = fewer(alive[link.output], kept[group].size) & ~alive[group]
            waking[group] = waking.get(group, False) | flags
    return waking


def _keep_some(
    kept: Flags, order: Flags, strided: list[Axis], multiple_of: int
) -> None:
    """Keeps dead channels: one at least of each group, and as many as are asked for."""
    for group, flags in kept.items():
        wanted = max(int(flags.sum()), 1)
        wanted += -wanted % multiple_of
        while flags.sum() < wanted and not flags.all():
            _keep_one(group, kept, order)
    of = math.lcm(_STRIDED, multiple_of)
    while any([_keep_multiple(groups, kept, order, of) for groups in strided]):
        pass  # what is kept for one may be read by another


def _keep_multiple(groups: Axis, kept: Flags, order: Flags, of: int) -> bool:
    """Keeps dead channels until their number is a multiple of `of`, if it can be.

    Gives whether that changes anything.
    """
    before = _count(groups, kept)
    for group in groups:
        while _count(groups, kept) % of and not kept[group].all():
            _keep_one(group, kept, order)
    return _count(groups, kept) > before


def _count(groups: Axis, kept: Flags) -> int:
    return sum(int(kept[group].sum()) for group in groups)


def _keep_one(group: int, kept: Flags, order: Flags) -> None:
    """Keeps the dead channel that is the first in order."""
    places = order[group]
    kept[group][places[~kept[group][places]][0]] = True


def _joined(
    name: str, axes: tuple[int, int], variable: Any, masks: Masks
) -> np.ndarray:
    """Whether any weight joins two channels: matrix (channels in, out)."""
    if name in masks:
        kept = masks[name]
    elif masks:  # a weight that was not pruned may be 0 now, and not for long
        kept = np.ones(variable.shape, bool)
    else:
        kept = variable.numpy() != 0
    join = kept.reshape(-1, *kept.shape[-2:]).any(0)
    return join if axes == (-2, -1) else join.T
