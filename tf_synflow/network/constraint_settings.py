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
    """What a constraint is that zeroes a variable at places of its last axis.

    It is no mask: what it holds at zero is not counted as pruned weights. It is the
    variable's, not the layer's: files and copies do not carry it.

    Attributes:
      kept: Boolean vector along the last axis, False where it is 0.
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
    """The constraint of a variable that files carry: without `HoldsZero`."""
    return constraint.other if isinstance(constraint, HoldsZero) else constraint


class JoinedMasks:
    """What a constraint is that joins those of several weights.

    Attributes:
      single: The class of the constraint of one weight.
      parts: Path of a weight in the layer ("query/kernel") to its constraint.
    """

    single: type

    def __init__(self, parts: Mapping[str, Any]):
        """Makes the constraint.

        Args:
          parts: See above; or their configurations.
        """
        self.parts = {
            path: self.single(**part) if isinstance(part, Mapping) else part
            for path, part in parts.items()
        }

    def part(self, name: str) -> Any:
        """The constraint of a weight by its name or path; None: it has none."""
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
      name: Its name or short name.
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
    """Leaves masks out of configurations, for copies that get their own."""
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
    """Has the configuration of a layer give the constraints of its weights.

    Args:
      layer: The layer.
      parts: Its weights by their short names.
      joined: Makes one constraint of several, by their paths.
      kind_of: What Keras calls the class of a layer.
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
