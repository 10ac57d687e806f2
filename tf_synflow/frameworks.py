"""Which Keras a model is made with: picks the adapter for it.

An adapter is a package with the same few functions for its framework:

    read(model) -> Network
    rebuild(network, masks, ...) -> Rebuilt      a copy, pruned by masks or plain
    same_layer(layer) -> layer                   one of the same configuration
    hold(model, masks) -> Holder                 keeps what is pruned at zero
    kind_of(layer), prunable_weights(layer)      what a layer is called; what it prunes
    scope(model), set_random_seed(seed)          of Keras itself

Nothing of a framework is imported before a model of it comes along.
"""

from types import ModuleType
from typing import Any

import numpy as np

from tf_synflow.network import Network


def adapter_of(model: Any) -> ModuleType:
    """The adapter for a model.

    Args:
      model: A Keras model.

    Raises:
      TypeError: It is no Keras model.
    """
    packages = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if "keras" in packages:
        raise TypeError(
            f"{EXPECTED}, got an object of Keras 3 ({_kind(model)}). tf_synflow and "
            "tfmot work with Keras 2: build the model with `import tf_keras as keras`, "
            "or set TF_USE_LEGACY_KERAS=1 in the environment before the first `import "
            "tensorflow`"
        )
    if "tf_keras" not in packages:
        raise TypeError(f"{EXPECTED}, got {_kind(model)}: {str(model)[:80]!r}")
    from tf_synflow import keras2

    return keras2


EXPECTED = "expected a built Sequential or functional tf_keras model"


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def read(model: Any) -> Network:
    """Reads a model: once for each call of a public function.

    Args:
      model: A built Sequential or functional tf_keras model, pruned or not.

    Raises:
      TypeError: It is not a `tf_keras` model.
      ValueError: A subclassed model, whose layers cannot be listed, or an unbuilt one.
    """
    return adapter_of(model).read(model)


def stripped(network: Network) -> Any:
    """A plain model, its pruned weights zero; see `pruning.masking.strip`."""
    adapter = adapter_of(network.model)
    plain, weights = adapter.rebuild(network, network.masks, hold=False)
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
    if not (isinstance(layer_class, type) and "tf_keras.Layer" in names):
        raise TypeError(
            f"layer_class must be a class of tf_keras layers, got {layer_class!r}"
        )
