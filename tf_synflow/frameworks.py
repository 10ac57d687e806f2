"""Picks the adapter for a model: the one for Keras 2 or the one for Keras 3.

An adapter is one of the packages `keras2` and `keras3`. Both have the same functions:

    read(model) -> Network rebuild(network, masks, ...) -> Rebuilt a copy, pruned by
    masks or plain Holder(model) keeps pruned weights at zero hold_zero(variable, kept)
    keeps channels of a variable at zero config_of(layer), layer_from(class, config) a
    layer's configuration, and back same_layer(layer) -> layer a new layer of this
    configuration with_factor(config, factor) -> layer attention with scaled queries
    kind_of(layer), prunable_weights(layer) name of its class; its prunable weights
    wrappable(layer) whether tfmot can hold its masks evaluated(function, array) ->
    array the output of a layer or function outputs_of(model, arrays) its outputs in
    inference mode servable(network) -> Servable a function to write a file from
    for_gradients(network, loss) both converted to Keras 2 scope(model),
    set_random_seed(seed) its strategy's scope; Keras's own function

An adapter imports its Keras. So each adapter is imported only when it is needed.
"""

from types import ModuleType
from typing import Any

import numpy as np

from tf_synflow.checks import check_choice
from tf_synflow.network import Network


def adapter_of(model: Any) -> ModuleType:
    """The adapter for a model.

    Args:
      model: A Keras model.

    Raises:
      TypeError: `model` is no Keras model.
    """
    if (adapter := adapter_of_class(type(model))) is None:
        raise TypeError(f"{EXPECTED}, got {_kind(model)}: {str(model)[:80]!r}")
    return adapter


def adapter_of_class(kind: type) -> ModuleType | None:
    """The adapter for a class of models or layers; None if it is no class of Keras."""
    packages = {cls.__module__.partition(".")[0] for cls in kind.__mro__}
    if "tf_keras" in packages:
        from tf_synflow import keras2

        return keras2
    if "keras" in packages:
        from tf_synflow import keras3

        return keras3
    return None


def keras_named(name: str) -> ModuleType:
    """Imports Keras 2 or Keras 3, and returns its package.

    Args:
      name: "tf_keras" (Keras 2) or "keras" (Keras 3).

    Raises:
      ValueError: `name` is another name.
    """
    check_choice("keras", name, ("tf_keras", "keras"))
    if name == "keras":
        from tf_synflow.keras3.imports import keras
    else:
        from tf_synflow.keras2.imports import keras
    return keras


EXPECTED = "expected a built Sequential or functional Keras model"


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def read(model: Any) -> Network:
    """Reads a model as a `Network`; a public function reads each model once.

    Args:
      model: A built Sequential or functional Keras model, pruned or not.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: `model` is subclassed, so that its layers cannot be listed, or it is
        not built.
    """
    return adapter_of(model).read(model)


def stripped(network: Network) -> Any:
    """A plain model whose pruned weights are zero; see `pruning.masking.strip`."""
    adapter = adapter_of(network.model)
    scaled = {
        call.name: call.layer.query_factor
        for call in network.calls
        if hasattr(call.layer, "query_factor") and call.kind is not None
    }

    def plain_layer(layer: Any) -> Any:
        if not hasattr(layer, "query_factor") or adapter.kind_of(layer) is None:
            return adapter.same_layer(layer)
        return adapter.with_factor(adapter.config_of(layer), 1)

    plain, weights = adapter.rebuild(
        network, network.masks, hold=False, make=plain_layer
    )
    with adapter.scope(plain):
        for name, factor in scaled.items():
            for short in ("query/kernel", "query/bias"):
                if (variable := weights.get(f"{name}/{short}")) is not None:
                    variable.assign(variable.numpy() * factor)
    for name, mask in network.masks.items():
        left = np.count_nonzero(weights[name].numpy()[~mask])
        if left:
            raise AssertionError(f"{left} pruned weights of {name!r} are not zero")
    return plain


def check_layer_class(layer_class: Any) -> None:
    """Checks that an object is a class of Keras layers.

    Raises:
      TypeError: `layer_class` is something else.
    """
    names = {
        f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
        for cls in getattr(layer_class, "__mro__", ())
    }
    known = names & {"tf_keras.Layer", "keras.Layer"}
    if not (isinstance(layer_class, type) and known):
        raise TypeError(
            f"layer_class must be a class of Keras layers, got {layer_class!r}"
        )
