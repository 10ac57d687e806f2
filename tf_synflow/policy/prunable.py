"""Which weights of a network a policy may prune."""

import itertools
from collections.abc import Collection
from fnmatch import fnmatchcase

import numpy as np

from tf_synflow import frameworks
from tf_synflow.network import Network


def excluded_layers(network: Network, exclude: Collection[str]) -> tuple[str, ...]:
    """The paths of the layers that `exclude` stands for, in the model's order.

    Args:
      network: The network.
      exclude: See `PruningPolicy`: paths of layers, of nested models, and patterns.

    Raises:
      ValueError: An entry of `exclude` fits no layer.
    """
    names = list(network.layers())
    found: set[str] = set()
    unknown = []
    for wanted in exclude:
        # A name that exists stands for itself, whatever characters it has.
        own = [wanted] if wanted in names else []
        own = own or [name for name in names if _within(name, wanted)]
        found.update(own)
        if not own:
            unknown.append(wanted)
    if unknown:
        raise ValueError(
            f"exclude names {', '.join(map(repr, unknown))}, but the model has no "
            "such layer; it has the layers (and nested models, up to each /) "
            f"{sorted(names)}"
        )
    return tuple(name for name in names if name in found)


def _within(name: str, pattern: str) -> bool:
    """Whether a pattern fits the path of a layer, or of a model that has the layer."""
    paths = itertools.accumulate(name.split("/"), "{}/{}".format)
    return any(fnmatchcase(path, pattern) for path in paths)


def _other_keras(network: Network, layer_types: Collection[type]) -> str:
    """A remark if layer types belong to another Keras than the model; "" otherwise."""
    own = frameworks.adapter_of(network.model)
    others = [
        kind.__name__
        for kind in layer_types
        if frameworks.adapter_of_class(kind) not in (None, own)
    ]
    if not others:
        return ""
    return f". {', '.join(others)} is of the other Keras: take it from the model's own"


def prunable_values(
    network: Network,
    excluded: Collection[str],
    layer_types: Collection[type] | None,
) -> dict[str, np.ndarray]:
    """The weights that may be pruned.

    Args:
      network: The network.
      excluded: Paths of layers to leave alone.
      layer_types: Layer classes whose weights may be pruned; None: all.

    Returns:
      Name to value, in the model's order.

    Raises:
      ValueError: Nothing may be pruned, or a weight is not finite.
    """
    names = network.prunable if layer_types is None else network.maskable
    values = {
        name: network.weights[name].numpy()
        for name in names
        for call in [network.owners[name]]
        if call.name not in excluded
        and (layer_types is None or type(call.layer) in layer_types)
    }
    if not values:
        raise ValueError(
            "the model has no weight that may be pruned: its layers are "
            f"{sorted({call.class_name for call in network.calls})}, those excluded "
            f"are {list(excluded)}, and layer_types is {layer_types}"
            + _other_keras(network, layer_types or ())
        )
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"weight {name!r} holds NaN or infinite values; scores of it would "
                "mean nothing. Load or initialise finite weights first"
            )
    return values
