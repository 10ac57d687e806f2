"""Makes a function of TensorFlow from a Keras 3 model, to write a file from."""

from typing import Any

import tensorflow as tf

from tf_synflow.keras3.conversion import as_tf_keras, input_names
from tf_synflow.keras3.imports import keras
from tf_synflow.keras3.reading import graph_of
from tf_synflow.network import Network
from tf_synflow.network.copies import Servable


def servable(network: Network) -> Servable:
    """A plain model as a function of TensorFlow.

    On the TensorFlow backend, the function runs the model itself. On other backends, it
    runs the counterpart of the model in Keras 2.

    Raises:
      ValueError: The model has no counterpart; see `as_tf_keras`.
    """
    if keras.backend.backend() != "tensorflow":
        from tf_synflow import keras2

        converted = keras2.read(as_tf_keras(network))
        return keras2.servable(converted)._replace(names=input_names(network.model))
    model = network.model

    structure = graph_of(model)._inputs_struct

    def function(inputs: list[Any]) -> list[Any]:
        arranged = keras.tree.pack_sequence_as(structure, list(inputs))
        return keras.tree.flatten(model(arranged, training=False))

    return Servable(
        names=input_names(model),
        specs=[tf.TensorSpec(spec.shape, spec.dtype) for spec in model.inputs],
        variables=[variable.value for variable in model.variables],
        function=function,
    )
