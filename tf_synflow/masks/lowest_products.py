"""Finds the lowest of many products without sorting or storing all products.

SynFlow's scores are products gradient * weight, and each iteration removes a few of the
lowest. The highest score to remove is guessed from a sample: it should lie between two
bounds. One pass over the factors, block by block, collects the products up to the upper
bound. Of these products, only those above the lower bound are ranked. The result does
not depend on the guess.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # the two factors, flat and of one size

_SAMPLE = 1 << 14

# Elements that a core computes in one block. With smaller blocks the threads spend
# their time on handing Python's lock to each other.
_BLOCK = 1 << 18

_TASK = 1 << 20  # elements in one task of a thread

# numpy releases Python's lock in its loops, so threads can run loops on several cores.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None

_POOL = ThreadPoolExecutor(_CORES or os.cpu_count())


def in_parallel(function: Callable, items: Iterable[Any], size: int) -> list[Any]:
    """The results of a function that is mostly numpy, in the order of the items.

    `size` is the total of numbers that the function works on. For few numbers, threads
    do not pay and are not used.
    """
    return list(_POOL.map(function, items) if size > _TASK else map(function, items))


class Found(NamedTuple):
    """What a pass over the factors found, for each pair.

    Attributes:
      positions: The positions of the products in (0, bound], ascending.
      values: The products at these positions.
      lost: The positions where the second factor is above 0, but the product is not.
    """

    positions: list[np.ndarray]
    values: list[np.ndarray]
    lost: list[np.ndarray]


def guess_bounds(pairs: Sequence[Pair], fraction: float) -> tuple[float, float]:
    """Guesses two bounds around the `fraction` quantile of the positive products."""
    total = sum(gradient.size for gradient, _ in pairs)
    # A stride by an odd number near the golden section visits places evenly.
    places = np.sort(np.arange(min(_SAMPLE, total)) * 2654435761 % total)
    products, start = [], 0
    for gradient, weight in pairs:
        first, last = np.searchsorted(places, (start, start + gradient.size))
        own = places[first:last] - start
        products.append(gradient[own] * weight[own])
        start += gradient.size
    sample = np.concatenate(products)
    sample = np.sort(sample[sample > 0])
    # Four standard deviations of the rank of a quantile in a sample.
    middle = fraction * sample.size
    margin = 4 * np.sqrt(middle) + 4
    low, high = int(middle - margin), int(middle + margin)
    return (
        float(sample[low]) if low > 0 else 0.0,
        float(sample[high]) if high < sample.size else np.inf,
    )


def products_up_to(pairs: Sequence[Pair], bound: float) -> Found:
    """Collects the products in (0, bound], and the `lost` positions; see `Found`."""
    tasks = [
        (number, start)
        for number, (gradient, _) in enumerate(pairs)
        for start in range(0, gradient.size, _TASK)
    ]

    def look(task: tuple[int, int]) -> Found:
        gradient, weight = pairs[task[0]]
        last = min(task[1] + _TASK, gradient.size)
        found = Found([], [], [])
        buffer = np.empty(_BLOCK, np.result_type(gradient, weight))
        flags = np.empty((2, _BLOCK), bool)
        for start in range(task[1], last, _BLOCK):
            part = slice(start, min(start + _BLOCK, last))
            above, own = flags[:, : part.stop - start]
            products = np.multiply(gradient[part], weight[part], buffer[: own.size])
            np.greater(products, 0, above)
            np.greater(weight[part], 0, own)
            if np.count_nonzero(own) != np.count_nonzero(above):
                # Of truth values, "greater" means "the first and not the second".
                found.lost.append(np.flatnonzero(np.greater(own, above)) + start)
            low = np.logical_and(np.less_equal(products, bound, own), above, own)
            places = np.flatnonzero(low)
            found.positions.append(places + start)
            found.values.append(products[places])
        return found

    collected: list[Found] = [Found([], [], []) for _ in pairs]
    for (number, _), found in zip(
        tasks, in_parallel(look, tasks, sum(g.size for g, _ in pairs)), strict=True
    ):
        for own, new in zip(collected[number], found, strict=True):
            own += new
    nothing = [np.empty(0, np.intp)]
    joined = ([np.concatenate(part or nothing) for part in own] for own in collected)
    return Found(*map(list, zip(*joined, strict=True)))


def lowest(
    pairs: Sequence[Pair], found: Found, count: int, lower: float = 0.0
) -> list[np.ndarray]:
    """The positions of the lowest positive products.

    Args:
      pairs: The factors.
      found: What `products_up_to` returned for these pairs, with any bound.
      count: How many positions to return; at most the number of positive products.
      lower: A bound under which probably fewer than `count` products lie. Defaults to
        0.

    Returns:
      For each pair, the positions of its products that are among the `count` lowest. Of
      equal products, those at later positions are taken first.
    """
    if sum(values.size for values in found.values) < count:
        found = products_up_to(pairs, np.inf)
    if count <= 0:
        return [np.empty(0, np.intp) for _ in pairs]
    values = np.concatenate(found.values)
    ranked = values[values > lower]
    rank = count - 1 - (values.size - ranked.size)
    if rank < 0:  # the lower bound was guessed too high
        ranked, rank = values, count - 1
    bound = np.partition(ranked, rank)[rank]
    taken = values < bound
    ties = np.flatnonzero(values == bound)
    taken[ties[ties.size - (count - np.count_nonzero(taken)) :]] = True
    ends = np.cumsum([own.size for own in found.values])[:-1]
    parts = zip(found.positions, np.split(taken, ends), strict=True)
    return [positions[own] for positions, own in parts]
