"""Masks in and out of models: tfmot wrappers, constraints, plain models again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow.keras2.reading import flatten, masks_of, prunable_weights
from tf_synflow.keras2.wrapping import rebuilt
from tf_synflow.masks.types import Masks
from tf_synflow.network import Graph, named_weights


def _in_old_form(config: Any) -> Any:
    """The configuration of a wrapped layer as the reader of .h5 files understands it.

    Wrappers write the new form, where `class_name` is "Own" and `registered_name` is
    "package>Own", and a function is a dictionary. The old form has "package>Own" for
    `class_name`, and a function's name.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(map(_in_old_form, config))
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "function":
        return config["config"]
    config = {key: _in_old_form(value) for key, value in config.items()}
    if config.get("registered_name"):
        config["class_name"] = config["registered_name"]
    return config


def get_masks(model: Any) -> Masks:
    """The masks of a pruned model.

    Args:
      model: A model that `prune` or `apply_masks` gave, or one loaded from its file; or
        a plain model that `PruningCallback(ratio=...)` pruned inside `fit`.

    Returns:
      Name ("conv1/kernel") to boolean array of the weight's shape, True where it is
      kept, in the order in which the model applies its layers.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It has no masks.
    """
    masks = masks_of(flatten(model))
    if not masks:
        raise ValueError(
            f"model {model.name!r} has no masks: it was never pruned, or has been "
            "stripped. (A plain model that PruningCallback(ratio=...) pruned has its "
            "masks until it is saved: save them beside it with save_masks)"
        )
    return masks


def apply_masks(model: Any, masks: Mapping[str, np.ndarray]) -> Any:
    """Gives a copy of a model that is pruned by the masks.

    Args:
      model: A built Sequential or functional tf_keras model, pruned or not. It is not
        changed, and shares nothing with what is returned.
      masks: Name ("conv1/kernel") to array of the weight's shape, True or 1 where it is
        kept. Weights that are not named are not pruned. For a model that is pruned
        already, the masks may remove more but not bring weights back.

    Returns:
      A new, uncompiled model: tfmot `PruneLowMagnitude` wrappers around the layers
      named, masks written, weights already sparse.

    Raises:
      TypeError: `model` is no tf_keras model or `masks` no mapping.
      ValueError: A name, shape or value is wrong, or a pruned weight would come back.
    """
    graph = flatten(model)
    if not isinstance(masks, Mapping):
        raise TypeError(
            "masks must be a mapping of weight names to arrays, as get_masks or "
            f"load_masks gives, got {type(masks).__name__}"
        )
    return rebuilt(model, _checked(graph, masks))


def strip(model: Any) -> Any:
    """Gives the plain Keras model that is left of a pruned one.

    Args:
      model: A pruned model (a plain one is copied). It is not changed.

    Returns:
      A new, uncompiled model without wrappers, which needs nothing but Keras to load.
      Its pruned weights are zero; nothing keeps them so if it is trained further.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It is subclassed or not built.
    """
    masks = masks_of(flatten(model))
    plain = rebuilt(model, masks, wrap=False)
    variables = named_weights(flatten(plain))
    for name, mask in masks.items():
        left = np.count_nonzero(variables[name].numpy()[~mask])
        if left:
            raise AssertionError(f"{left} pruned weights of {name!r} are not zero")
    return plain


def _checked(graph: Graph, masks: Mapping[str, np.ndarray]) -> Masks:
    """The masks as boolean arrays in the model's order, joined with those it has."""
    if not masks:
        raise ValueError("masks is empty: there is nothing to prune by")
    now = masks_of(graph)
    variables = {
        f"{call.name}/{short}": variable
        for call in graph.calls
        for short, variable in prunable_weights(call.layer).items()
    }
    unknown = [name for name in masks if name not in variables]
    if unknown:
        raise ValueError(
            f"masks name the weights {unknown}, but the model has no such weights that "
            f"can be pruned; it has {list(variables)}"
        )
    joined = {}
    for name, variable in variables.items():
        if name not in masks:
            if name in now:
                joined[name] = now[name]
            continue
        mask = np.asarray(masks[name])
        if mask.shape != tuple(variable.shape):
            raise ValueError(
                f"the mask of {name!r} has shape {mask.shape}, but the weight has "
                f"shape {tuple(variable.shape)}"
            )
        if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
            raise ValueError(
                f"the mask of {name!r} must hold only True and False (or 1 and 0), got "
                f"dtype {mask.dtype} with values like {mask.ravel()[:3].tolist()}"
            )
        joined[name] = mask.astype(bool)
        if name in now and (joined[name] & ~now[name]).any():
            raise ValueError(
                f"the mask of {name!r} keeps weights that the model has pruned "
                "already; their values are gone. Apply the masks to the original model"
            )
    return joined
