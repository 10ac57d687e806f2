"""Converts losses of Keras 3 to Keras 2, for the criteria that need data."""

import inspect
from typing import Any

from tf_synflow.keras3.conversion import as_tf_keras
from tf_synflow.keras3.imports import keras
from tf_synflow.network import Network

_INSTEAD = (
    "Give loss=function instead, where function(labels, outputs) is written with "
    "TensorFlow"
)


def for_gradients(network: Network, loss: Any) -> tuple[Network, Any]:
    """A network of Keras 2 to take gradients in, and the loss for it.

    Args:
      network: The Keras 3 model; see `as_tf_keras`.
      loss: The loss that the user gave. None: the loss that the model is compiled with.

    Raises:
      ValueError: The model or the loss cannot be converted.
    """
    from tf_synflow import keras2

    model, original = as_tf_keras(network), network.model
    if getattr(original, "compiled", False) and original.loss is not None:
        weights = getattr(original._compile_loss, "_user_loss_weights", None)
        model.compile(loss=converted(original.loss), loss_weights=weights)
    return keras2.read(model), converted(loss)


def converted(loss: Any) -> Any:
    """Converts a loss, or a list or dictionary of losses, to Keras 2."""
    from tf_synflow.keras2.imports import keras as keras2

    if isinstance(loss, dict):
        return {name: converted(part) for name, part in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [converted(part) for part in loss]
    name = getattr(loss, "__name__", type(loss).__name__)
    if inspect.isfunction(loss) and loss.__module__.startswith("keras."):
        return _found(keras2, name)
    if not isinstance(loss, keras.losses.Loss):
        return loss  # a name, a function of the user's own, or None
    if type(loss).__module__.partition(".")[0] != "keras":
        raise ValueError(
            f"the loss {name} is a class of your own for Keras 3, but the gradients "
            f"are computed in Keras 2. {_INSTEAD}"
        )
    kind = _found(keras2, name)
    known = inspect.signature(kind.__init__).parameters
    defaults = inspect.signature(type(loss).__init__).parameters
    settings = {}
    # The configuration leaves some settings out.
    every = {**getattr(loss, "_fn_kwargs", {}), **loss.get_config()}
    for key, value in every.items():
        if key in ("reduction", "name", "dtype"):
            continue
        if key in known:
            settings[key] = value
        elif key not in defaults or value != defaults[key].default:
            raise ValueError(
                f"the loss {name} has {key}={value!r}, which Keras 2 does not "
                f"support, and the gradients are computed in Keras 2. {_INSTEAD}"
            )
    return kind(**settings)


def _found(keras2: Any, name: str) -> Any:
    found = getattr(keras2.losses, name, None)
    if found is None:
        raise ValueError(
            f"the loss {name} of Keras 3 does not exist in Keras 2, in which the "
            f"gradients are computed. {_INSTEAD}"
        )
    return found
