"""Which weights lie on a path from an input to an output.

A kept weight may conduct nothing, because all paths through it are cut elsewhere. The
*effective* density counts only the weights that conduct. The linear twin finds these
weights: all kept weights are set to 1, and positive entries of the signals are set back
to 1 on the way, so that nothing overflows. A weight with a gradient above 0 then lies
on a path.

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
      exclude: Names of layers that are treated as the identity if they have no known
        linear part. Defaults to None: no layer is excluded, and error messages do not
        suggest excluding one.

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
    """The call with a mean in place of a maximum, which lets only one signal pass."""
    if "MaxPooling" not in (call.kind or ""):
        return operators.averaged(call)
    return call._replace(kind=call.kind.replace("Max", "Average"))


def _reached(signal: Signal) -> Signal:
    """A signal of 1 where anything arrives and 0 elsewhere; its gradient likewise."""
    return signal._replace(tensor=_indicator(signal.tensor))


@tf.custom_gradient
def _indicator(x: Any) -> tuple[Any, Any]:
    arrived = tf.cast(x > 0, x.dtype)

    def gradient(upstream: Any) -> Any:
        return tf.cast(upstream > 0, x.dtype) * arrived

    return arrived, gradient
