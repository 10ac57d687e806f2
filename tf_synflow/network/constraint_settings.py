"""Where layers keep the constraints of their weights for their configuration.

A constraint that holds a mask is in a saved file only if the configuration of a layer
gives it. Most layers have a setting for the constraint of each weight. Some have one
setting for several weights: MultiHeadAttention has one for its four kernels, and the
two directions of a Bidirectional of Keras 2 are made from one layer. Such a setting
gets one constraint that joins those of all its weights, by their paths.

Nothing here imports a Keras; what changes constraints are the adapters.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tf_synflow.network.layer_weights import Part, sublayers

_ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")

masks_are_left_out = contextvars.ContextVar("masks_are_left_out", default=False)


@contextlib.contextmanager
def masks_left_out() -> Iterator[None]:
    """Leaves masks out of configurations, for copies that get their own."""
    token = masks_are_left_out.set(True)
    try:
        yield
    finally:
        masks_are_left_out.reset(token)


def configure(
    layer: Any,
    parts: Mapping[str, Part],
    held: Mapping[str, Any],
    joined: Callable[[dict[str, Any]], Any],
    kind_of: Callable[[Any], str | None],
) -> None:
    """Writes constraints to where the configuration of a layer is made from.

    Args:
      layer: The layer.
      parts: Its weights by their short names.
      held: Short name of a weight to its constraint.
      joined: Makes one constraint of several, by their paths.
      kind_of: What Keras calls the class of a layer.
    """
    for short, constraint in held.items():
        part = parts[short]
        if part.constraint_attribute in vars(part.layer):
            setattr(part.layer, part.constraint_attribute, constraint)
    waiting = [(layer, "")]
    while waiting:
        holder, path = waiting.pop()
        waiting += [(inner, f"{path}{inner.name}/") for inner in sublayers(holder)]
        kind = kind_of(holder)
        if kind not in (*_ATTENTION, "Bidirectional"):
            continue
        inside = {
            short.removeprefix(path): constraint
            for short, constraint in held.items()
            if short.startswith(path)
        }
        if kind in _ATTENTION and inside:
            _set(holder, ("_kernel_constraint", "kernel_constraint"), joined(inside))
        elif kind == "Bidirectional" and inside:
            _configure_directions(holder, path, parts, inside, joined)


def _configure_directions(
    holder: Any,
    path: str,
    parts: Mapping[str, Part],
    inside: Mapping[str, Any],
    joined: Callable[[dict[str, Any]], Any],
) -> None:
    """Writes the constraints of both directions into the layer that both are made of.

    Keras 3 has no such layer, and saves the two directions themselves.
    """
    if not hasattr(holder, "layer"):
        return
    together: dict[str, dict[str, Any]] = {}
    for short, constraint in inside.items():
        attribute = parts[path + short].constraint_attribute
        together.setdefault(attribute, {})[short] = constraint
    for inner in holder.layer._flatten_layers():
        for attribute, constraints in together.items():
            _set(inner, (attribute,), joined(constraints))


def _set(layer: Any, attributes: tuple[str, ...], constraint: Any) -> None:
    for attribute in attributes:
        if attribute in vars(layer):
            setattr(layer, attribute, constraint)


def every_layer(layer: Any) -> Iterator[Any]:
    """A layer and all layers in it, also those that others are made of.

    An operation of Keras 3 is none.
    """
    for inner in layer._flatten_layers() if hasattr(layer, "_flatten_layers") else ():
        yield inner
        template = vars(inner).get("layer")
        if hasattr(template, "_flatten_layers"):
            yield from template._flatten_layers()


def named_alike(short: str, path: str) -> bool:
    """Whether the short name of a weight is a path, or ends in it."""
    return short == path or short.endswith(f"/{path}")
