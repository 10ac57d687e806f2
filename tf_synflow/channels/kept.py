"""Which channels stay when a network is shrunk: the alive channels, and some dead ones.

Dead channels stay where TensorFlow or the caller needs more channels than are alive.
Such a channel must stay dead while the small network is trained. The reason is that the
weights are put back into the whole network, where the channel has neighbours that the
small network does not have. Masks keep the channel dead. A dead channel that no mask
keeps dead counts as alive.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.channels.groups import Axis, Channels, fewer, more
from tf_synflow.channels.needed import find_sources, strided_1x1
from tf_synflow.channels.reachability import reached
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network

# On the CPU in float32, TensorFlow 2.21 writes past the end of its memory when it
# computes the gradient of a strided 1x1 convolution by the kernel, unless the number of
# input channels is a multiple of this.
_STRIDED = 16

# Group to boolean vector, one flag for each of its channels.
Flags = dict[int, np.ndarray]


class Kept(NamedTuple):
    """The channels that stay in a network.

    Attributes:
      kept: The channels that stay.
      alive: The channels that are alive, which means fed and read. Alive channels stay.
      unfed: The number of channels that are read though nothing feeds them.
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
        # Channels that nothing feeds or reads come first: they wake no other channel.
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
    """A flag for each channel of a bundle: whether any group has True for it."""
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

    Either no mask keeps a kernel from reading such a channel, or the channel is part of
    a signal that is alive.
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
    """Keeps dead channels, until each group has a channel and an allowed width."""
    for group, flags in kept.items():
        wanted = max(int(flags.sum()), 1)
        wanted += -wanted % multiple_of
        while flags.sum() < wanted and not flags.all():
            _keep_one(group, kept, order)
    of = math.lcm(_STRIDED, multiple_of)
    while any([_keep_multiple(groups, kept, order, of) for groups in strided]):
        pass  # a channel kept for one convolution may be read by another one


def _keep_multiple(groups: Axis, kept: Flags, order: Flags, of: int) -> bool:
    """Keeps dead channels until a multiple of `of` is kept, if that is possible.

    Returns whether this keeps another channel.
    """
    before = _count(groups, kept)
    for group in groups:
        while _count(groups, kept) % of and not kept[group].all():
            _keep_one(group, kept, order)
    return _count(groups, kept) > before


def _count(groups: Axis, kept: Flags) -> int:
    return sum(int(kept[group].sum()) for group in groups)


def _keep_one(group: int, kept: Flags, order: Flags) -> None:
    """Keeps one more dead channel: the first of them in `order`."""
    places = order[group]
    kept[group][places[~kept[group][places]][0]] = True


def _joined(
    name: str, axes: tuple[int, int], variable: Any, masks: Masks
) -> np.ndarray:
    """Boolean matrix (channels in, channels out): whether any weight joins the two."""
    if name in masks:
        kept = masks[name]
    elif masks:  # a weight that was not pruned may be 0 now and another number later
        kept = np.ones(variable.shape, bool)
    else:
        kept = variable.numpy() != 0
    join = kept.reshape(-1, *kept.shape[-2:]).any(0)
    return join if axes == (-2, -1) else join.T
