"""Which Keras a model is made with: picks the adapter for it.

An adapter is a package with the same few functions for its framework:

    read(model) -> Network
    rebuild(network, masks, ...) -> Rebuilt      a copy, pruned by masks or plain
    Holder(model)                                keeps what is pruned at zero
    hold_zero(variable, kept)                    places of its last axis at zero
    config_of(layer), layer_from(class, config)  a layer as data, and back
    same_layer(layer) -> layer                   one of the same configuration
    with_factor(config, factor) -> layer         attention with scaled queries
    kind_of(layer), prunable_weights(layer)      what a layer is called; what it prunes
    wrappable(layer)                             whether tfmot can hold its masks
    evaluated(function, array) -> array          what a layer or function gives
    outputs_of(model, arrays)                    in inference mode
    servable(network) -> Servable                what a file is written from
    for_gradients(network, loss)                 both as Keras 2 has them
    scope(model), set_random_seed(seed)          of Keras itself

Nothing of a framework is imported before a model of it comes along.
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
      TypeError: It is no Keras model.
    """
    if (adapter := adapter_of_class(type(model))) is None:
        raise TypeError(f"{EXPECTED}, got {_kind(model)}: {str(model)[:80]!r}")
    return adapter


def adapter_of_class(kind: type) -> ModuleType | None:
    """The adapter for a class of models or layers; None if it is of no Keras."""
    packages = {cls.__module__.partition(".")[0] for cls in kind.__mro__}
    if "tf_keras" in packages:
        from tf_synflow import keras2

        return keras2
    if "keras" in packages:
        from tf_synflow import keras3

        return keras3
    return None


def keras_named(name: str) -> ModuleType:
    """The package of a Keras.

    Args:
      name: "tf_keras" (Keras 2) or "keras" (Keras 3).

    Raises:
      ValueError: It is another name.
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
    """Reads a model: once for each call of a public function.

    Args:
      model: A built Sequential or functional Keras model, pruned or not.

    Raises:
      TypeError: It is no Keras model.
      ValueError: A subclassed model, whose layers cannot be listed, or an unbuilt one.
    """
    return adapter_of(model).read(model)


def stripped(network: Network) -> Any:
    """A plain model, its pruned weights zero; see `pruning.masking.strip`."""
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
    """Refuses what is no class of Keras layers.

    Raises:
      TypeError: It is something else.
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
