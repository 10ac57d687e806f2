"""Which weights lie on a path from an input to an output.

A weight that survives in a mask may conduct nothing, because all paths through it are
cut elsewhere. The *effective* density counts only those that conduct. It is found with
the linear twin, all surviving weights 1 and signals put back to 0 and 1 on the way, so
that nothing overflows: what then has a gradient lies on a path.

References:
  Vysogorets, Kempe. Connectivity matters: neural network pruning through the lens of
  effective sparsity. JMLR 2023. arXiv 2107.02306.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow import operators
from tf_synflow.flow.linear_twin import (
    LinearTwin,
    Magnitudes,
    aligned_copy,
    shared_tensor,
)
from tf_synflow.flow.scaling import Signal
from tf_synflow.masks.types import Masks
from tf_synflow.network import Call, Network


def on_paths(
    network: Network,
    masks: Mapping[str, np.ndarray],
    exclude: Collection[str] | None = None,
) -> tuple[Masks, bool]:
    """The masks without the weights that conduct nothing.

    Weights that have no mask, and normalisation, count as conducting.

    Args:
      network: The network.
      masks: Name to boolean array, True where a weight is kept.
      exclude: Names of layers that are taken for the identity where they have no known
        linear part. Defaults to none, and errors then do not offer it.

    Returns:
      Masks of the weights that lie on a path; and whether every output of the model can
      be reached from an input.

    Raises:
      ValueError: Layers have no known linear part, or an input has no fixed shape.
    """
    weights = {n: Magnitudes(aligned_copy(_floats(m)), 0) for n, m in masks.items()}
    others = {
        name: np.ones(variable.shape, "float32")
        for name, variable in network.weights.items()
        if name not in masks
    }
    calls = tuple(map(_averaged, network.calls))
    found = {name: np.zeros(mask.shape, bool) for name, mask in masks.items()}
    connected = True
    for output in network.outputs:
        one = dataclasses.replace(network, calls=calls, outputs=(output,))
        twin = LinearTwin(one, weights, others, exclude=exclude, settle=_reached)
        tensors = {n: shared_tensor(w.array) for n, w in weights.items()}
        tensors |= {name: tf.constant(other) for name, other in others.items()}
        flow, gradients = twin.gradients(tensors)
        connected = connected and float(flow.tensor) > 0
        for (name, mask), gradient in zip(masks.items(), gradients, strict=True):
            found[name] |= (gradient > 0) & mask
    return found, connected


def _floats(mask: np.ndarray) -> np.ndarray:
    return mask.astype("float32")


def _averaged(call: Call) -> Call:
    """Max pooling lets one of its inputs through; averaging lets all, as paths go."""
    if "MaxPooling" not in (call.kind or ""):
        return operators.averaged(call)
    return call._replace(kind=call.kind.replace("Max", "Average"))


def _reached(signal: Signal) -> Signal:
    """1 where anything arrives, forwards and backwards, else 0."""
    return signal._replace(tensor=_indicator(signal.tensor))


@tf.custom_gradient
def _indicator(x: Any) -> tuple[Any, Any]:
    arrived = tf.cast(x > 0, x.dtype)

    def gradient(upstream: Any) -> Any:
        return tf.cast(upstream > 0, x.dtype) * arrived

    return arrived, gradient
