"""Counts what is left of a network, by layer and in total."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.channels.plan import ChannelPlan
from tf_synflow.flow.paths import on_paths
from tf_synflow.masks.selection import emptied
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network
from tf_synflow.network.layer_weights import ATTENTION
from tf_synflow.policy.dense import dense_kernels
from tf_synflow.reporting.multiply_adds import uses_of_weights
from tf_synflow.reporting.report import Report


def report(model: Any) -> Report:
    """Says what is left of a network.

    ```python
    print(tf_synflow.report(pruned))
    tf_synflow.report(pruned).plot("densities.png")
    ```

    Args:
      model: A built Sequential or functional Keras model: pruned, stripped or plain.
        The model is not changed. A weight counts as kept if its mask keeps it, or if it
        is not zero and no mask is applied to it.

    Returns:
      The `Report`.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: `model` is subclassed or not built, or no weight of it could be
        pruned.
    """
    return report_of(frameworks.read(model))


def report_of(network: Network, plan: ChannelPlan | None = None) -> Report:
    """The report of a network that was read already; `plan` is computed if None."""
    plan = plan or ChannelPlan(network)
    masks = _kept(network)
    if not masks:
        raise ValueError(
            f"model {network.name!r} has no weight that could be pruned, so there is "
            "nothing to report"
        )
    notes = []
    try:
        effective, connected = on_paths(network, masks)
    except ValueError as error:
        effective, connected = None, None
        notes.append(f"Paths from input to output are not known: {error}")
    positions, uncounted = uses_of_weights(network)
    if uncounted:
        notes.append(f"Multiply-adds leave out: {', '.join(uncounted)}")
    if network.revived:
        notes.append(
            f"{network.revived:,} weights were pruned inside fit but are not zero now, "
            "and count as kept: weights from before pruning were loaded"
        )
    rows = [
        _row(
            name, mask, positions[name], effective[name] if effective else None, network
        )
        for name, mask in masks.items()
    ]
    totals = _totals(network, rows, positions)
    totals |= {
        "shrunk": _shrunk(plan, positions, totals["macs"] is not None),
        "uncounted": uncounted,
        "emptied": emptied(masks),
        "connected": connected,
    }
    return Report(network.name, rows, totals, notes)


def _kept(network: Network) -> Masks:
    """Name to mask of every prunable weight: its mask, or True where it is not 0."""
    return {
        name: network.masks[name]
        if name in network.masks
        else network.weights[name].numpy() != 0
        for name in network.maskable
        if name in network.prunable or name in network.masks
    }


def _row(
    name: str,
    mask: np.ndarray,
    positions: int | None,
    effective: np.ndarray | None,
    network: Network,
) -> dict[str, Any]:
    kept, size = int(np.count_nonzero(mask)), mask.size
    axes = _channel_axes(name, network)
    row: dict[str, Any] = {
        "name": name,
        "shape": list(mask.shape),
        "size": size,
        "kept": kept,
        "density": kept / size,
        "effective": None,
        "effective_density": None,
        "channels": math.prod(mask.shape[axis] for axis in axes),
        "dead_channels": None,
        "macs": None if positions is None else size * positions,
        "sparse_macs": None if positions is None else kept * positions,
    }
    if effective is not None:
        channels = np.moveaxis(effective, axes, range(len(axes)))
        alive = channels.reshape(row["channels"], -1).any(1)
        row["effective"] = int(np.count_nonzero(effective))
        row["effective_density"] = row["effective"] / size
        row["dead_channels"] = int(np.count_nonzero(~alive))
    return row


def _channel_axes(name: str, network: Network) -> tuple[int, ...]:
    """The axes of a weight along which its output channels lie."""
    call = network.owners[name]
    if call.kind == "EinsumDense":
        read, rest = call.layer.equation.split(",")
        kernel = rest.split("->")[0]
        return tuple(i for i, letter in enumerate(kernel) if letter not in read)
    if call.kind in ATTENTION and not name.endswith("attention_output/kernel"):
        return (-2, -1)  # the units of each head
    return (-2,) if "Transpose" in call.class_name else (-1,)


def _totals(
    network: Network,
    rows: list[dict[str, Any]],
    positions: Mapping[str, int | None],
) -> dict[str, Any]:
    sizes = {name: math.prod(v.shape) for name, v in network.weights.items()}
    size, kept = (sum(row[key] for row in rows) for key in ("size", "kept"))
    every = sum(sizes.values())
    # If the multiply-adds of a prunable weight are unknown, so is the total. Unknown
    # multiply-adds of other weights are left out.
    known = all(row["macs"] is not None for row in rows)
    macs = sum(sizes[name] * (uses or 0) for name, uses in positions.items())
    pruned = sum(row["macs"] - row["sparse_macs"] for row in rows) if known else 0
    counted = rows[0]["effective"] is not None
    effective = sum(row["effective"] for row in rows) if counted else None
    return {
        "prunable": _part(size, kept),
        "not_prunable": {
            "size": every - size,
            "kernels": dense_kernels(network, {row["name"] for row in rows}),
        },
        "parameters": _part(every, every - size + kept),
        "effective": effective,
        "effective_density": effective / size if counted else None,
        "channels": sum(row["channels"] for row in rows),
        "dead_channels": sum(r["dead_channels"] for r in rows) if counted else None,
        "macs": macs if known else None,
        "sparse_macs": macs - pruned if known else None,
        "speedup": macs / (macs - pruned) if known and macs > pruned else None,
    }


def _shrunk(
    plan: ChannelPlan, positions: Mapping[str, int | None], known: bool
) -> dict[str, Any]:
    sizes = {name: math.prod(shape) for name, shape in plan.shapes().items()}
    macs = sum(sizes[name] * (uses or 0) for name, uses in positions.items())
    return {
        "parameters": sum(sizes.values()),
        "macs": macs if known else None,
        "unfed_channels": plan.unfed,
    }


def _part(size: int, kept: int) -> dict[str, Any]:
    return {
        "size": size,
        "kept": kept,
        "density": kept / size,
        "compression": size / kept if kept else None,
    }
