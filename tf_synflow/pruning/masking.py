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
      model: A model that `prune` or `apply_masks` gave, or one loaded from its file; or
        a plain model that `PruningCallback(ratio=...)` pruned inside `fit`.

    Returns:
      Name ("conv1/kernel") to boolean array of the weight's shape, True where it is
      kept, in the order in which the model applies its layers.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: It has no masks.
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
    """Gives a copy of a model that is pruned by the masks.

    Args:
      model: A built Sequential or functional Keras model, pruned or not. It is not
        changed, and shares nothing with what is returned.
      masks: Name ("conv1/kernel") to array of the weight's shape, True or 1 where it is
        kept. Weights that are not named are not pruned. For a model that is pruned
        already, the masks may remove more but not bring weights back.

    Returns:
      A new, uncompiled model, its weights already sparse. Of Keras 2: tfmot
      `PruneLowMagnitude` wrappers around the layers named hold the masks. Of Keras 3:
      constraints of plain layers hold them.

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
    """What `apply_masks` gives, for a network that was read already."""
    adapter = frameworks.adapter_of(network.model)
    return adapter.rebuild(network, _checked(network, masks)).model


def strip(model: Any) -> Any:
    """Gives the plain Keras model that is left of a pruned one.

    Args:
      model: A pruned model (a plain one is copied). It is not changed.

    Returns:
      A new, uncompiled model without masks, which needs nothing but Keras to load.
      Its pruned weights are zero; nothing keeps them so if it is trained further.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: It is subclassed or not built.
    """
    return frameworks.stripped(frameworks.read(model))


def zero_pruned(model: Any) -> int:
    """Sets the pruned weights of a model to zero again.

    Keras's own optimizers keep them zero by themselves. Those of other libraries know
    nothing of constraints. After each of their steps, call this:

    ```python
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)  # KERAS_BACKEND=torch
    ...
    optimizer.step()
    tf_synflow.zero_pruned(pruned)
    ```

    Args:
      model: A pruned model, which is changed.

    Returns:
      How many weights had come back.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: It has no masks.
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
    """The masks as boolean arrays in the model's order, joined with those it has."""
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
