"""Which channels are fed from the input, and which are read up to the output.

Two sweeps over the kernels and links of a `Channels`: one from the inputs, one back.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from tf_synflow.channels.groups import Axis, Channels, Link, along, fewer, more

# A function from the flags of all groups to the flags that arrive at some groups; and
# these groups.
_Edge = tuple[Callable[[Mapping[int, np.ndarray]], np.ndarray], Axis]


def living(
    channels: Channels,
    joins: Mapping[str, np.ndarray],
    sizes: Mapping[int, int],
    sources: Mapping[int, np.ndarray] | None = None,
) -> dict[int, np.ndarray]:
    """The channels that are fed from the input and read up to the output.

    Args:
      channels: The groups of the network's channels.
      joins: Name to boolean matrix `(channels in, channels out)` for each of
        `kernels`: whether any weight joins the two.
      sizes: Group to the number of channels that it has now.
      sources: Group to boolean vector: channels that are fed by something else than
        the input. Defaults to none.

    Returns:
      Group to boolean vector, True for the channels that are fed and read.
    """
    fed, read = reached(channels, joins, sizes, sources)
    return {group: fed[group] & read[group] for group in sizes}


def reached(
    channels: Channels,
    joins: Mapping[str, np.ndarray],
    sizes: Mapping[int, int],
    sources: Mapping[int, np.ndarray] | None = None,
    sinks: Mapping[int, np.ndarray] | None = None,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The channels that are fed, and those that are read.

    Args:
      channels: See `living`.
      joins: See `living`.
      sizes: See `living`.
      sources: See `living`.
      sinks: Group to boolean vector: channels that count as read in any case. Defaults
        to none.
    """
    steps: list[str | Link] = list(channels.kernels)
    for link in reversed(channels.links):
        steps.insert(link.after, link)
    forth: list[_Edge] = []
    for step in steps:
        if isinstance(step, Link):
            forth.append(_into_link(step, sizes))
        else:
            into, out = (channels.axes[step][axis] for axis in channels.kernels[step])
            forth.append(_through(joins[step], into, out))
    fed = _reached(forth, channels.held, sizes, sources or {})
    back: list[_Edge] = []
    for step in reversed(steps):
        if isinstance(step, Link):
            places = range(len(step.inputs))
            back += [_out_of_link(step, i, sizes, fed) for i in places]
        else:
            into, out = (channels.axes[step][axis] for axis in channels.kernels[step])
            back.append(_through(joins[step].T, out, into))
    return fed, _reached(back, channels.ends, sizes, sinks or {})


def _through(join: np.ndarray, source: Axis, target: Axis) -> _Edge:
    return lambda reached: join[along(source, reached)].any(0), target


def _into_link(link: Link, sizes: Mapping[int, int]) -> _Edge:
    def arrive(reached: Mapping[int, np.ndarray]) -> np.ndarray:
        size = sizes[link.output]
        return np.all([more(reached[group], size) for group in link.inputs], 0)

    return arrive, (link.output,)


def _out_of_link(
    link: Link, place: int, sizes: Mapping[int, int], fed: Mapping[int, np.ndarray]
) -> _Edge:
    group, size = link.inputs[place], sizes[link.output]
    others = [more(fed[g], size) for i, g in enumerate(link.inputs) if i != place]

    def arrive(reached: Mapping[int, np.ndarray]) -> np.ndarray:
        return fewer(np.all([reached[link.output], *others], 0), sizes[group])

    return arrive, (group,)


def _reached(
    edges: list[_Edge],
    start: Collection[int],
    sizes: Mapping[int, int],
    also: Mapping[int, np.ndarray],
) -> dict[int, np.ndarray]:
    """The channels that can be reached from the groups in `start` and from `also`.

    The edges are in the order of the paths, so one sweep finds all channels. But a
    shared layer that feeds itself needs more sweeps.
    """
    reached = {group: np.full(size, group in start) for group, size in sizes.items()}
    for group, flags in also.items():
        reached[group] |= flags
    while True:
        before = sum(int(flags.sum()) for flags in reached.values())
        for arrive, target in edges:
            flags, first = arrive(reached), 0
            for group in target:
                reached[group] |= flags[first : first + sizes[group]]
                first += sizes[group]
        if sum(int(flags.sum()) for flags in reached.values()) == before:
            return reached
