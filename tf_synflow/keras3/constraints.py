"""The constraint that keeps pruned weights at zero, and carries their mask."""

from typing import Any

import numpy as np

from tf_synflow.keras3.imports import keras
from tf_synflow.keras3.weights import kind_of, layer_parts
from tf_synflow.masks.packing import packed, unpacked
from tf_synflow.network.constraint_settings import (
    HoldsMask,
    HoldsZero,
    JoinedMasks,
    configure,
    held_by,
    lasting,
    masks_are_left_out,
    release,
)


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPruned(HoldsMask, keras.constraints.Constraint):
    """Zeroes pruned weights after each update, so that nobody sees them otherwise.

    Keras's optimizers apply a variable's constraint inside the training step, after the
    update. So the zeros hold whatever the optimizer, in `train_on_batch` and in custom
    loops. An optimizer of another library, such as `torch.optim`, knows no constraints;
    see `tf_synflow.zero_pruned`.

    The mask is part of the constraint's configuration. So it travels with the layer's:
    in `.keras` and `.h5` files, with pickle, and with `clone_model`, whose weights are
    new and dense until they are set or trained.

    Attributes:
      mask: Boolean array of the weight's shape, True where it is kept.
      other: The constraint that the weight had before, applied first; or None.
    """

    def __init__(self, mask: Any, other: Any = None):
        """Makes the constraint.

        Args:
          mask: See above; or what `get_config` wrote.
          other: See above; or its configuration.

        Raises:
          ValueError: What `get_config` wrote is damaged.
        """
        if isinstance(mask, dict):
            mask = unpacked(mask)
        elif mask is not None and np.asarray(mask).dtype.kind != "b":
            raise ValueError(f"a mask is a boolean array, got {mask!r:.80}")
        self.mask = mask
        self.other = keras.constraints.get(other)

    def __call__(self, value: Any) -> Any:
        """The constrained weight."""
        value = keras.ops.convert_to_tensor(value)  # it may be a variable
        if self.other is not None:
            value = self.other(value)
        # Not value * mask, which is NaN where a diverged weight is.
        return keras.ops.where(self.mask, value, keras.ops.zeros_like(value))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them: the mask as packed, deflated bits."""
        left_out = masks_are_left_out.get() or self.mask is None
        mask = None if left_out else packed(self.mask)
        return {"mask": mask, "other": keras.constraints.serialize(lasting(self.other))}


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPrunedParts(JoinedMasks, keras.constraints.Constraint):
    """The constraints of several weights whose layer has one setting for all."""

    single = KeepPruned

    def __call__(self, value: Any) -> Any:
        """The constrained weight: optimizers give the variable itself."""
        part = self.part(getattr(value, "path", ""))
        return keras.ops.convert_to_tensor(value) if part is None else part(value)


def constrain(name: str, variable: Any, mask: np.ndarray) -> bool:
    """Gives a weight the constraint that keeps its pruned entries zero.

    Args:
      name: Its name or short name.
      variable: The weight.
      mask: Boolean array of its shape.

    Returns:
      Whether it is new to the variable: a training function traced before does not
      know of it.
    """
    old, other = held_by(name, variable), variable.constraint
    if old is not None:
        if variable.constraint is old and np.array_equal(old.mask, mask):
            return False
        other = old.other
    variable.constraint = KeepPruned(mask, other)
    return True


class HoldZero(HoldsZero, keras.constraints.Constraint):
    """Zeroes a variable at places of its last axis after each update."""

    def __call__(self, w: Any) -> Any:
        """The constrained variable."""
        w = w if self.other is None else self.other(w)
        return keras.ops.where(self.kept, w, keras.ops.zeros_like(w))


def hold_zero(variable: Any, kept: np.ndarray) -> None:
    """Zeroes a variable where `kept` is False, now and in training; see `HoldZero`."""
    constraint = HoldZero(kept, variable.constraint)
    variable.assign(constraint(variable.value))
    variable.constraint = constraint


def write_into_settings(layer: Any) -> None:
    """Has the configuration of a layer give the constraints of its weights."""
    configure(layer, layer_parts(layer), KeepPrunedParts, kind_of)


def unconstrained(layer: Any) -> Any:
    """An unbuilt layer or operation, with the constraints from before it was pruned."""
    release(layer)
    parts = layer_parts(layer) if isinstance(layer, keras.layers.Layer) else {}
    for part in parts.values():
        # A layer that wraps others is made with these built already.
        held = held_by(part.variable.path, part.variable)
        if held is not None:
            part.variable.constraint = lasting(held.other)
    return layer


def zero_pruned(variable: Any, mask: np.ndarray) -> None:
    """Sets pruned weights to zero now."""
    value = variable.numpy()
    if (value[~mask] != 0).any():
        variable.assign(np.where(mask, value, np.zeros_like(value)))
