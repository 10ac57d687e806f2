"""Makes pruned copies of a Keras 3 model, with the masks in constraints."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_synflow.keras3.constraints import constrain, write_into_settings
from tf_synflow.keras3.copying import copy_model, scope
from tf_synflow.keras3.weights import weights_like
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network
from tf_synflow.network.copies import Rebuilt


def rebuild(
    network: Network,
    masks: Masks,
    *,
    hold: bool = True,
    make: Callable[[Any], Any] | None = None,
    weights: Callable[[Any], bool] | None = None,
    inputs: Callable[[Any], list[tuple] | None] | None = None,
) -> Rebuilt:
    """Copies a model, layer by layer, and prunes the weights that have masks.

    Args:
      network: The model, which is not changed.
      masks: Name to mask, with the shape that the weight has in the copy.
      hold: Whether constraints in the copy hold the masks. Defaults to True.
      make: See `copy_model`.
      weights: See `copy_model`.
      inputs: See `copy_model`.

    Raises:
      ValueError: See `copy_model`.
    """
    model, copies = copy_model(network, make=make, weights=weights, inputs=inputs)
    paths = {id(call.layer): call.name for call in reversed(network.calls)}
    found: dict[str, Any] = {}
    with scope(network.model):
        for original, layer in copies:
            path = paths.get(id(original))
            if path is None:
                continue  # no output depends on this layer
            for short, variable in weights_like(original, layer).items():
                name = f"{path}/{short}"
                found[name] = variable
                if name not in masks:
                    continue
                value = variable.numpy()
                variable.assign(np.where(masks[name], value, np.zeros_like(value)))
                if hold:
                    constrain(short, variable, masks[name])
            if hold:
                write_into_settings(layer)
    return Rebuilt(model, {name: found[name] for name in network.weights})
