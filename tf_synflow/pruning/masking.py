"""Masks in and out of models: get_masks, apply_masks, strip, zero_pruned."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network


def get_masks(model: Any) -> Masks:
    """The masks of a pruned model.

    Args:
      model: A model that `prune` or `apply_masks` returned, such a model loaded from a
        file, or a plain model that `PruningCallback(ratio=...)` pruned inside `fit`.

    Returns:
      Name ("conv1/kernel") to boolean array of the weight's shape, True where the
      weight is kept. The names are in the order in which the model applies its layers.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: `model` has no masks.
    """
    masks = frameworks.read(model).masks
    if not masks:
        raise ValueError(
            f"model {model.name!r} has no masks: it was never pruned, or has been "
            "stripped. (A plain model of Keras 2 that PruningCallback(ratio=...) "
            "pruned has its masks until it is saved: save them beside it with "
            "save_masks)"
        )
    return masks


def apply_masks(model: Any, masks: Mapping[str, np.ndarray]) -> Any:
    """Returns a copy of a model, pruned by masks.

    Args:
      model: A built Sequential or functional Keras model, pruned or not. It is not
        changed, and the new model shares nothing with it.
      masks: Name ("conv1/kernel") to array of the weight's shape, True or 1 where the
        weight is kept. Weights without a mask here are not pruned. If the model is
        pruned already, the masks may remove more weights, but may not bring pruned
        weights back.

    Returns:
      A new, uncompiled model, whose weights are already sparse. In Keras 2, tfmot
      `PruneLowMagnitude` wrappers around the layers of the named weights hold the
      masks. In Keras 3, and for layers of Keras 2 that tfmot cannot wrap, the layers
      stay plain, and constraints hold the masks.

    Raises:
      TypeError: `model` is no Keras model or `masks` no mapping.
      ValueError: A name, shape or value is wrong, or a pruned weight would come back.
    """
    network = frameworks.read(model)
    if not isinstance(masks, Mapping):
        raise TypeError(
            "masks must be a mapping of weight names to arrays, as get_masks or "
            f"load_masks gives, got {type(masks).__name__}"
        )
    return masked(network, masks)


def masked(network: Network, masks: Mapping[str, np.ndarray]) -> Any:
    """Does what `apply_masks` does, for a model that was read already."""
    adapter = frameworks.adapter_of(network.model)
    return adapter.rebuild(network, _checked(network, masks)).model


def strip(model: Any) -> Any:
    """Returns a plain Keras model with the weights of a pruned model.

    Args:
      model: A pruned model, which is not changed. A plain model is copied.

    Returns:
      A new, uncompiled model without masks. A file of this model can be loaded with
      Keras alone. Its pruned weights are zero, but nothing keeps them at zero in
      further training.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: `model` is subclassed or not built.
    """
    return frameworks.stripped(frameworks.read(model))


def zero_pruned(model: Any) -> int:
    """Sets the pruned weights of a model to zero again.

    Keras's own optimizers keep pruned weights at zero. Optimizers of other libraries do
    not know Keras's constraints. Call this function after each step of such an
    optimizer:

    ```python
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)  # KERAS_BACKEND=torch
    ...
    optimizer.step()
    tf_synflow.zero_pruned(pruned)
    ```

    Args:
      model: A pruned model, which is changed.

    Returns:
      How many pruned weights had come back.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: `model` has no masks.
    """
    holder = frameworks.adapter_of(model).Holder(model)
    holder.look()
    if not holder.masks:
        raise ValueError(
            f"model {model.name!r} has no masks: it was never pruned, or has been "
            "stripped"
        )
    return holder.mend()


def _checked(network: Network, masks: Mapping[str, np.ndarray]) -> Masks:
    """The masks as boolean arrays in the model's order, with those it has already."""
    if not masks:
        raise ValueError("masks is empty: there is nothing to prune by")
    unknown = [name for name in masks if name not in network.maskable]
    if unknown:
        raise ValueError(
            f"masks name the weights {unknown}, but the model has no such weights that "
            f"can be pruned; it has {list(network.maskable)}"
        )
    joined = {}
    for name in network.maskable:
        now = network.masks.get(name)
        if name in masks:
            shape = tuple(network.weights[name].shape)
            joined[name] = _as_mask(name, np.asarray(masks[name]), shape)
            if now is not None and (joined[name] & ~now).any():
                raise ValueError(
                    f"the mask of {name!r} keeps weights that the model has pruned "
                    "already; their values are gone. Apply the masks to the original "
                    "model"
                )
        elif now is not None:
            joined[name] = now
    return joined


def _as_mask(name: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape != shape:
        raise ValueError(
            f"the mask of {name!r} has shape {mask.shape}, but the weight has "
            f"shape {shape}"
        )
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"the mask of {name!r} must hold only True and False (or 1 and 0), got "
            f"dtype {mask.dtype} with values like {mask.ravel()[:3].tolist()}"
        )
    return mask.astype(bool)
