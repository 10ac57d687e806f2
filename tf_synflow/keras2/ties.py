"""Checks that the copy of a model neither has nor reads variables of the model."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tf_synflow.keras2.imports import keras
from tf_synflow.keras2.reading import layer_nodes
from tf_synflow.network import Network


def check_ancillary(models: Iterable[Any]) -> None:
    """Refuses Sequential models with loss terms on tensors: Keras cannot copy these."""
    for part in models:
        if isinstance(part, keras.Sequential) and min(part._nodes_by_depth) < 0:
            raise ValueError(
                f"model {part.name!r} is Sequential and has an add_loss or add_metric "
                "on one of its tensors, which Keras cannot copy; build it with "
                "keras.Model(inputs, outputs) and add the loss to that"
            )


def check_einsum(network: Network) -> None:
    """Refuses models that call `tf.einsum`, because Keras cannot copy these."""
    names = [call.name for call in network.calls if call.kind == "tf.einsum"]
    if names:
        raise ValueError(
            f"the model calls tf.einsum ({', '.join(map(repr, names))}), and Keras 2 "
            "cannot copy such a model (github.com/keras-team/tf-keras/issues/122). "
            "Write it with keras.layers.EinsumDense or keras.layers.Dot, or inside a "
            "layer class of your own"
        )


def check_shares_nothing(
    model: Any, result: Any, copies: list[Any], read: Iterable[Any]
) -> None:
    """Refuses a copy that has, or reads, a variable that is not its own.

    Args:
      model: The original.
      result: Its copy.
      copies: All copied layers.
      read: The trainable variables that the layers of the copy read.
    """
    old = {id(part) for weight in model.weights for part in _parts(weight)}
    for original, layer, _ in copies:
        for variable in layer.weights:
            if old & {id(part) for part in _parts(variable)}:
                raise ValueError(
                    f"a copy of layer {original.name!r} ({type(original).__name__}) "
                    f"would share the variable {variable.name!r} with the model. Its "
                    "get_config() gives away a layer or a variable that it holds; let "
                    "it give keras.layers.serialize(layer) and read that in from_config"
                )
    own = {id(part) for weight in result.weights for part in _parts(weight)}
    foreign = [variable for variable in read if id(variable) not in own]
    if foreign:
        name, kind = _reader(result, foreign[0])
        raise ValueError(
            f"layer {name!r} ({kind}) computes with the variable {foreign[0].name!r}, "
            "which is not among its weights, so a copy of the model would share it. "
            "Make it a layer of your own that has this weight (add_weight in its "
            "build); a weight of another layer cannot be used"
        )


def _parts(variable: Any) -> list[Any]:
    """A variable, the variable that it casts, and its variables on the replicas."""
    inner = getattr(variable, "_variable", variable)
    return [variable, inner, *getattr(inner, "values", ())]


def _reader(model: Any, variable: Any) -> tuple[str, str]:
    """Name and class of the layer that reads a variable."""
    for node in layer_nodes(model):
        with tf.GradientTape() as tape:
            node.layer(*node.call_args, **node.call_kwargs)
        if any(seen is variable for seen in tape.watched_variables()):
            return node.layer.name, type(node.layer).__name__
    return model.name, type(model).__name__
