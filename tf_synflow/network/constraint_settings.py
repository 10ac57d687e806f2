"""The settings by which the configuration of a layer includes its weights' constraints.

A constraint that holds a mask is in a saved file only if the configuration of a layer
includes it. Most layers have one setting for the constraint of each weight. Some layers
have one setting for several weights: MultiHeadAttention has one for its four kernels,
and the two directions of a Bidirectional of Keras 2 are made from one layer. Such a
setting gets one joined constraint, which holds the constraints of all its weights by
their paths.

Nothing here imports Keras 2 or Keras 3.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_synflow.network.layer_weights import ATTENTION, Part, sublayers

masks_are_left_out = contextvars.ContextVar("masks_are_left_out", default=False)


class HoldsMask:
    """Marks a constraint that holds the mask of a weight.

    Attributes:
      other: The constraint that the weight had before, or None.
    """

    other: Any


class HoldsZero:
    """A constraint that holds a variable at 0 at some places of its last axis.

    The constraint is not a mask: the weights that it holds at 0 do not count as pruned.
    The constraint belongs to the variable and not to the layer: files and copies do not
    carry it.

    Attributes:
      kept: Boolean vector along the last axis, False where the variable is 0.
      other: The constraint that the variable had before, applied first; or None.
    """

    def __init__(self, kept: np.ndarray, other: Any = None):
        """Makes the constraint.

        Args:
          kept: See above.
          other: See above. Defaults to None.
        """
        self.kept = kept
        self.other = lasting(other)


def lasting(constraint: Any) -> Any:
    """The constraint of a variable without `HoldsZero`, which files do not carry."""
    return constraint.other if isinstance(constraint, HoldsZero) else constraint


class JoinedMasks:
    """A constraint that joins the constraints of several weights.

    Attributes:
      single: The class of the constraint of one weight.
      parts: Path of a weight in the layer ("query/kernel") to its constraint.
    """

    single: type

    def __init__(self, parts: Mapping[str, Any]):
        """Makes the constraint.

        Args:
          parts: See above; a constraint may also be given as its configuration.
        """
        self.parts = {
            path: self.single(**part) if isinstance(part, Mapping) else part
            for path, part in parts.items()
        }

    def part(self, name: str) -> Any:
        """The constraint of a weight, by its name or path; None if it has none."""
        for path, part in self.parts.items():
            if named_alike(name, path):
                return part
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        parts = {path: part.get_config() for path, part in self.parts.items()}
        return {"parts": parts}


def held_by(name: str, variable: Any) -> Any:
    """The constraint that holds the mask of a weight; None if there is none.

    Args:
      name: The weight's name or short name.
      variable: The weight.
    """
    constraint = variable.constraint
    if isinstance(constraint, JoinedMasks):
        return constraint.part(name)
    return constraint if isinstance(constraint, HoldsMask) else None


def release(layer: Any) -> None:
    """Gives an unbuilt layer the constraints that it had before it was pruned."""
    for inner in every_layer(layer):
        for attribute, value in list(vars(inner).items()):
            if isinstance(value, JoinedMasks):
                value = next(iter(value.parts.values()))
            if isinstance(value, HoldsMask):
                setattr(inner, attribute, lasting(value.other))


@contextlib.contextmanager
def masks_left_out() -> Iterator[None]:
    """Leaves masks out of configurations, for copies that get masks of their own."""
    token = masks_are_left_out.set(True)
    try:
        yield
    finally:
        masks_are_left_out.reset(token)


def configure(
    layer: Any,
    parts: Mapping[str, Part],
    joined: Callable[[dict[str, Any]], Any],
    kind_of: Callable[[Any], str | None],
) -> None:
    """Makes the configuration of a layer include the constraints of its weights.

    Args:
      layer: The layer.
      parts: The layer's weights by their short names.
      joined: Function from path to constraint of several weights to one constraint.
      kind_of: Function from a layer to Keras's name of its class.
    """
    held = {short: held_by(short, part.variable) for short, part in parts.items()}
    held = {short: constraint for short, constraint in held.items() if constraint}
    for short, constraint in held.items():
        part = parts[short]
        if part.constraint_attribute in vars(part.layer):
            setattr(part.layer, part.constraint_attribute, constraint)
    waiting = [(layer, "")]
    while waiting:
        holder, path = waiting.pop()
        waiting += [(inner, f"{path}{inner.name}/") for inner in sublayers(holder)]
        kind = kind_of(holder)
        if kind not in (*ATTENTION, "Bidirectional"):
            continue
        inside = {
            short.removeprefix(path): constraint
            for short, constraint in held.items()
            if short.startswith(path)
        }
        if kind in ATTENTION and inside:
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
    """Writes the constraints of two directions into the layer they are both made from.

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
    """A layer, all layers in it, and the layers that these are made from.

    An operation of Keras 3 is not a layer, so nothing is yielded for it.
    """
    for inner in layer._flatten_layers() if hasattr(layer, "_flatten_layers") else ():
        yield inner
        template = vars(inner).get("layer")
        if hasattr(template, "_flatten_layers"):
            yield from template._flatten_layers()


def named_alike(short: str, path: str) -> bool:
    """Whether the short name of a weight is `path`, or ends in it."""
    return short == path or short.endswith(f"/{path}")
