"""How long SynFlow takes, beside the gradient passes that it cannot do without.

The *floor* of a loop of n iterations is n bare float64 gradient passes of the twin of
the unpruned network, dense: all positions are computed, convolutions are TensorFlow's,
and the twin is traced already. Floor, loop and `prune` (the loop, and the copy with its
masks) are measured in one process, in turn, so that their ratios hold when the
machine's speed drifts.
"""

import contextlib
import resource
import statistics
import time
from collections.abc import Iterator
from typing import Any

import tf_synflow
from tf_synflow import frameworks, models
from tf_synflow.flow import position_rules
from tf_synflow.flow.linear_twin import LinearTwin, shared_tensor
from tf_synflow.flow.loop import network_twin
from tf_synflow.flow.survivors import Survivors
from tf_synflow.policy.pruning_policy import PruningPolicy

STAGES = {
    "gradients": (LinearTwin, "gradients"),
    "ranking": (Survivors, "remove"),
    "cutting": (Survivors, "cut_if_stale"),
}


def measure(
    model: str,
    size: int,
    classes: int,
    ratio: float,
    iterations: int,
    repeats: int,
    dtype: str = "float64",
) -> dict[str, Any]:
    """Times one network in this process, which should be a new process.

    Args:
      model: Name of the network; see `models.build`.
      size: Height and width of its images, in pixels.
      classes: Number of its classes.
      ratio: Compression ratio to prune to.
      iterations: Iterations of the loop, and passes of the floor.
      repeats: How often floor and loop are timed, in turn. With 0, only one loop is
        timed.
      dtype: "float64" or "float32", for both the loop and the floor.

    Returns:
      All arguments but `repeats`, by name; `prunable` and `kept`, numbers of weights;
      `emptied`, the names of weights of which nothing is kept; `first_seconds`, the
      time of the first loop and of all that comes before the loop, tracing included;
      `peak_gb`, the peak memory of the process until then; lists `loop_seconds`,
      `prune_seconds` and `floor_seconds`; and `stages`, the median seconds of each
      stage of the loop.
    """
    network = models.build(model, (size, size, 3), classes)
    policy = PruningPolicy(iterations=iterations, dtype=dtype, progress=False)
    result: dict[str, Any] = {
        "model": model, "size": size, "classes": classes, "ratio": ratio,
        "iterations": iterations, "dtype": dtype,
    }  # fmt: skip
    start = time.perf_counter()
    masks = policy.masks(network, ratio)
    result["first_seconds"] = time.perf_counter() - start
    result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    result["prunable"] = sum(mask.size for mask in masks.values())
    result["kept"] = sum(int(mask.sum()) for mask in masks.values())
    result["emptied"] = [name for name, mask in masks.items() if not mask.any()]
    loops, prunes, floors, stages = [], [], [], []
    if repeats:
        read = frameworks.read(network)
        weights = {name: read.weights[name].numpy() for name in masks}
        with _dense():
            twin, magnitudes = network_twin(read, weights, dtype=dtype, traced=True)
        tensors = {n: shared_tensor(w.array) for n, w in magnitudes.items()}
        twin.gradients(tensors)
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(iterations):
            twin.gradients(tensors)
        floors.append(time.perf_counter() - start)
        with _stopwatch() as seconds:
            start = time.perf_counter()
            policy.masks(network, ratio)
            loops.append(time.perf_counter() - start)
        stages.append(dict(seconds))
        start = time.perf_counter()
        tf_synflow.prune(network, ratio, policy=policy)
        prunes.append(time.perf_counter() - start)
    result["floor_seconds"], result["loop_seconds"] = floors, loops
    result["prune_seconds"] = prunes
    result["stages"] = {
        stage: statistics.median(own[stage] for own in stages) if stages else None
        for stage in STAGES
    }
    return result


@contextlib.contextmanager
def _dense() -> Iterator[None]:
    """While this is open, twins are traced so that they compute all positions."""
    original = position_rules.rule_of
    position_rules.rule_of = lambda part: position_rules.everywhere
    try:
        yield
    finally:
        position_rules.rule_of = original


@contextlib.contextmanager
def _stopwatch() -> Iterator[dict[str, float]]:
    """Adds up the seconds that the loop spends in each stage while this is open."""
    seconds = dict.fromkeys(STAGES, 0.0)
    originals = {stage: getattr(*place) for stage, place in STAGES.items()}

    def timed(stage: str) -> Any:
        def run(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return originals[stage](*args)
            finally:
                seconds[stage] += time.perf_counter() - start

        return run

    for stage, (owner, name) in STAGES.items():
        setattr(owner, name, timed(stage))
    try:
        yield seconds
    finally:
        for stage, (owner, name) in STAGES.items():
            setattr(owner, name, originals[stage])


HEADER = (
    "| model | weights | ratio | iterations | loop s | floor s | loop / floor | "
    "prune / floor | gradients | ranking | cutting | first s | peak GB | "
    "ns per weight, iteration |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(result: dict[str, Any]) -> str:
    """Gives a result as a row of a Markdown table: medians, with (min to max)."""
    loops, floors = result["loop_seconds"], result["floor_seconds"]
    ratios = [
        _spread([own / floor for own, floor in zip(seconds, floors, strict=True)])
        for seconds in (loops, result["prune_seconds"])
    ]
    floor = statistics.median(floors) if floors else None
    stages = [
        f"{seconds / floor:.2f}" if floor else ""
        for seconds in result["stages"].values()
    ]
    median = statistics.median(loops) if loops else result["first_seconds"]
    each = 1e9 * median / result["prunable"] / result["iterations"]
    name = f"{result['model']} {result['size']}x{result['size']}"
    if result["dtype"] != "float64":
        name += f" {result['dtype']}"
    cells = [
        name, f"{result['prunable']:,}", f"{result['ratio']:g}",
        str(result["iterations"]), _spread(loops), _spread(floors), *ratios,
        *stages, f"{result['first_seconds']:.2f}", f"{result['peak_gb']:.2f}",
        f"{each:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    middle = statistics.median(values)
    return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"
