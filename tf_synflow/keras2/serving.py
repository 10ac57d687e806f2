"""Makes a function of TensorFlow from a tf_keras model, to write a file from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.network import Network
from tf_synflow.network.copies import Servable


def servable(network: Network) -> Servable:
    """A plain model as a function of TensorFlow."""
    model = network.model
    return Servable(
        names=list(model.input_names),
        specs=[tf.TensorSpec(spec.shape, spec.dtype) for spec in model.inputs],
        variables=list(model.weights),
        function=lambda inputs: outputs_in(model, inputs),
    )


def outputs_of(model: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model in inference mode, in a flat list of arrays."""
    return [part.numpy() for part in outputs_in(model, list(map(tf.constant, inputs)))]


def outputs_in(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a model in inference mode, in a flat list of tensors."""
    arranged = tf.nest.pack_sequence_as(model.input, inputs)
    return tf.nest.flatten(model(arranged, training=False))
