"""What is left of a network, layer by layer."""

import math
from typing import Any

import numpy as np

from tf_synflow.graph import Call, Graph, flatten, named_weights
from tf_synflow.masks import Masks


def layer_rows(model: Any, masks: Masks) -> list[dict[str, Any]]:
    """One row a masked weight tensor.

    Args:
      model: A built Sequential or functional tf_keras model.
      masks: Name ("conv1/kernel") to boolean array of the weight's shape.

    Returns:
      Rows with `name`, `shape`, `size` and `kept` (weights), `density` (kept / size)
      and `macs` (multiply-adds of the unpruned layer for one input; a layer that is
      called twice counts twice).
    """
    graph = flatten(model)
    variables = named_weights(graph)
    positions: dict[str, int] = {}
    for call in graph.calls:
        before = positions.get(call.name, 0)
        positions[call.name] = before + _positions(graph, call)
    rows = []
    for name, mask in masks.items():
        kept = int(np.count_nonzero(mask))
        rows.append(
            {
                "name": name,
                "shape": list(variables[name].shape),
                "size": mask.size,
                "kept": kept,
                "density": kept / mask.size,
                "macs": mask.size * positions[name.rpartition("/")[0]],
            }
        )
    return rows


def collapsed_layers(masks: Masks) -> list[str]:
    """Names of the weight tensors of which nothing is kept."""
    return [name for name, mask in masks.items() if not mask.any()]


def _positions(graph: Graph, call: Call) -> int:
    """How often each weight of a layer is used for one input.

    A convolution uses a weight once for each position of its output, a transposed one
    for each position of its input, Dense once for all axes before the last.
    """
    transposed = "Transpose" in type(call.layer).__name__
    shape = graph.shapes[call.inputs[0] if transposed else call.outputs[0]]
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return math.prod(shape[2:] if first else shape[1:-1])
