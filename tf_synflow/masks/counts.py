"""How many weights are kept, exactly, and after each iteration.

A mask is a boolean array of its weight's shape, True where the weight is kept. Masks
and scores are dictionaries by weight name, in the order of the model. Equal scores are
ranked by "position": by the place in that order first, then by the place in the array
in C order.
"""

import math
import numbers
from decimal import Decimal
from fractions import Fraction

import numpy as np

from tf_synflow.masks.types import Masks, Plan

SCHEDULES = ("exponential", "linear")

SCOPES = ("global", "local")


def pruned_fraction(ratio: float) -> Fraction:
    """The fraction of the weights to remove, exactly as the decimal was written.

    Args:
      ratio: `>= 1`: the compression ratio rho; the fraction 1 - 1/rho is removed.
        `0 <= ratio < 1`: the fraction that is removed.

    Returns:
      The fraction, in [0, 1), as an exact rational number: 0.99 is 99/100, which no
      binary float is.

    Raises:
      TypeError: `ratio` is no number.
      ValueError: `ratio` is NaN, infinite or negative.
    """
    if isinstance(ratio, (bool, np.bool_)) or not isinstance(
        ratio, (numbers.Real, Decimal)
    ):
        raise TypeError(
            f"ratio must be a number, got {ratio!r}: >= 1 is a compression ratio (100 "
            "keeps 1 %), 0 <= ratio < 1 the fraction removed (0.99 keeps 1 %)"
        )
    whole = isinstance(ratio, numbers.Rational)  # finite, but may exceed every float
    if not (whole or math.isfinite(ratio)) or ratio < 0:
        raise ValueError(
            f"ratio must be finite and not negative, got {ratio!r}: >= 1 is a "
            "compression ratio (100 keeps 1 %), 0 <= ratio < 1 the fraction removed "
            "(0.99 keeps 1 %)"
        )
    # str() gives the shortest decimal that is read back as this number.
    exact = Fraction(ratio if whole else str(ratio))
    return exact if exact < 1 else 1 - 1 / exact


def kept_count(size: int, ratio: float) -> int:
    """How many of `size` weights are kept: N - floor((1 - 1/rho) N), exactly.

    Args:
      size: N, the number of prunable weights.
      ratio: See `pruned_fraction`, which also lists the errors raised.

    Returns:
      The number kept, at least 1 for a positive size.
    """
    return size - math.floor(pruned_fraction(ratio) * size)


def check_reach(masks: Masks, ratio: float, scope: str) -> None:
    """Refuses a ratio that keeps too few weights, or more than are left now.

    Args:
      masks: Name to mask, True for the weights that are left now.
      ratio: See `pruned_fraction`.
      scope: "global" or "local"; see `plan`.

    Raises:
      ValueError: `ratio` keeps fewer weights than there are weight tensors (in a global
        ranking; a local ranking always keeps one weight of each tensor), or more
        weights than are left. The error names a ratio that works, if there is one.
    """
    size = sum(mask.size for mask in masks.values())
    kept = kept_count(size, ratio)
    if scope == "global" and kept < len(masks):
        raise ValueError(
            f"ratio={ratio} keeps {kept} of {size:,} prunable weights, fewer than "
            f"the {len(masks)} weight tensors; the highest ratio that can keep one "
            f"weight in each is {highest_ratio(size, len(masks))!r} (to six places)"
        )
    whole = {"the model": masks}
    parts = {f"weight {name!r}": {name: mask} for name, mask in masks.items()}
    short, lowest = "", 0.0
    for what, some in (whole if scope == "global" else parts).items():
        size = sum(mask.size for mask in some.values())
        now = sum(int(mask.sum()) for mask in some.values())
        kept = kept_count(size, ratio)
        if kept <= now:
            continue
        short = short or (
            f"ratio={ratio} keeps {kept:,} of {size:,} prunable weights, but {what} is "
            f"pruned to {now:,} already; prune the original model"
        )
        lowest = max(lowest, lowest_ratio(size, now))
    if short:
        # No ratio keeps 0 weights, so `lowest` may be infinite.
        ask = f", or ask for a ratio of at least {lowest!r}"
        raise ValueError(short + (ask if lowest < math.inf else ""))


def highest_ratio(size: int, kept: int) -> float:
    """The highest ratio, to six places, that keeps at least `kept` >= 2 of `size`.

    N - floor((1 - 1/rho) N) is N / rho rounded up: it is at least k for every rho below
    N / (k - 1).
    """
    return (-(-(10**6) * size // (kept - 1)) - 1) / 10**6


def lowest_ratio(size: int, kept: int) -> float:
    """The lowest ratio, to six places, that keeps at most `kept` of `size`.

    Infinity if there is no such ratio.
    """
    return -(-(10**6) * size // kept) / 10**6 if kept else math.inf


def densities(
    ratio: float, iterations: int, schedule: str = "exponential", start: float = 1.0
) -> list[float]:
    """The density to reach at each iteration (Algorithm 1 of arXiv 2006.05467).

    With d = 1/rho and n iterations, iteration k goes to `d^(k/n)` (exponential) or to
    `1 - (1 - d) k/n` (linear). From a density `start` < 1, iteration k goes to
    `start (d/start)^(k/n)` or to `start - (start - d) k/n`.

    Args:
      ratio: See `pruned_fraction`.
      iterations: n, at least 1.
      schedule: "exponential" or "linear".
      start: The density before the first iteration, in (0, 1]. Defaults to 1.

    Returns:
      The densities for k = 1 ... n, falling.
    """
    density = float(1 - pruned_fraction(ratio))
    steps = [k / iterations for k in range(1, iterations + 1)]
    if schedule == "exponential":
        return [start * (density / start) ** step for step in steps]
    return [start - (start - density) * step for step in steps]


def kept_counts(
    size: int, ratio: float, iterations: int, schedule: str, kept: int
) -> list[int]:
    """How many of `size` weights are kept after each iteration, `kept` of them now.

    The last count is `kept_count(size, ratio)`, which must not be above `kept`. Counts
    never rise.
    """
    if kept == 0:
        return [0] * iterations
    counts = []
    for density in densities(ratio, iterations, schedule, kept / size)[:-1]:
        kept = min(kept, size - int((1.0 - density) * size))
        counts.append(max(kept, kept_count(size, ratio)))
    return [*counts, kept_count(size, ratio)]


def plan(
    masks: Masks, ratio: float, iterations: int, schedule: str, scope: str
) -> Plan:
    """How many weights to keep at each iteration.

    Args:
      masks: Name to mask to begin from.
      ratio: See `pruned_fraction`; the ratio of all weights together (global) or of
        each weight tensor (local).
      iterations: n, at least 1.
      schedule: "exponential" or "linear"; see `densities`.
      scope: "global" (one ranking) or "local" (one for each weight tensor).

    Returns:
      For each iteration a list of (names ranked together, number kept of them).
    """
    groups = [list(masks)] if scope == "global" else [[name] for name in masks]
    counts = [
        kept_counts(
            sum(masks[name].size for name in names),
            ratio,
            iterations,
            schedule,
            sum(int(masks[name].sum()) for name in names),
        )
        for names in groups
    ]
    return [list(zip(groups, step, strict=True)) for step in zip(*counts, strict=True)]
