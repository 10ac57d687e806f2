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
    """Zeroes pruned weights after each update.

    Keras's optimizers apply a variable's constraint inside the training step, after the
    update. So pruned weights stay zero with every optimizer of Keras, in
    `train_on_batch` and in custom loops. Optimizers of other libraries, such as
    `torch.optim`, know no constraints; see `tf_synflow.zero_pruned`.

    The mask is part of the constraint's configuration, and so of the layer's
    configuration. So `.keras` and `.h5` files, pickle and `clone_model` keep the mask.
    `clone_model` makes new weights, which are dense until they are set or trained.

    Attributes:
      mask: Boolean array of the weight's shape, True where the weight is kept.
      other: The constraint that the weight had before, applied first; or None.
    """

    def __init__(self, mask: Any, other: Any = None):
        """Makes the constraint.

        Args:
          mask: See `KeepPruned`; or the packed mask that `get_config` wrote.
          other: See `KeepPruned`; or the configuration of that constraint. Defaults to
            None.

        Raises:
          ValueError: The packed mask is damaged.
        """
        if isinstance(mask, dict):
            mask = unpacked(mask)
        elif mask is not None and np.asarray(mask).dtype.kind != "b":
            raise ValueError(f"a mask is a boolean array, got {mask!r:.80}")
        self.mask = mask
        self.other = keras.constraints.get(other)

    def __call__(self, value: Any) -> Any:
        """The constrained weight."""
        value = keras.ops.convert_to_tensor(value)  # `value` may be a variable
        if self.other is not None:
            value = self.other(value)
        # Not value * mask: the product is NaN where a diverged weight is NaN or
        # infinite.
        return keras.ops.where(self.mask, value, keras.ops.zeros_like(value))

    def get_config(self) -> dict[str, Any]:
        """The arguments as Keras saves them, with the mask as packed, deflated bits."""
        left_out = masks_are_left_out.get() or self.mask is None
        mask = None if left_out else packed(self.mask)
        return {"mask": mask, "other": keras.constraints.serialize(lasting(self.other))}


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPrunedParts(JoinedMasks, keras.constraints.Constraint):
    """Joins the constraints of weights for which their layer has one setting."""

    single = KeepPruned

    def __call__(self, value: Any) -> Any:
        """The constrained weight.

        An optimizer passes the variable itself. Its path says which weight it is.
        """
        part = self.part(getattr(value, "path", ""))
        return keras.ops.convert_to_tensor(value) if part is None else part(value)


def constrain(name: str, variable: Any, mask: np.ndarray) -> bool:
    """Gives a weight the constraint that keeps its pruned entries zero.

    Args:
      name: Name or short name of the weight.
      variable: The weight.
      mask: Boolean array of the weight's shape, True where the weight is kept.

    Returns:
      Whether the constraint is new. A training function that was traced before does not
      know a new constraint.
    """
    old, other = held_by(name, variable), variable.constraint
    if old is not None:
        if variable.constraint is old and np.array_equal(old.mask, mask):
            return False
        other = old.other
    variable.constraint = KeepPruned(mask, other)
    return True


class HoldZero(HoldsZero, keras.constraints.Constraint):
    """Zeroes entries along a variable's last axis after each update."""

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
    """Writes the constraints of a layer's weights into the layer's configuration."""
    configure(layer, layer_parts(layer), KeepPrunedParts, kind_of)


def unconstrained(layer: Any) -> Any:
    """Gives an unbuilt layer its constraints from before pruning, and returns it.

    An operation is returned as it is.
    """
    release(layer)
    parts = layer_parts(layer) if isinstance(layer, keras.layers.Layer) else {}
    for part in parts.values():
        # If a layer wraps other layers, these may be built already.
        held = held_by(part.variable.path, part.variable)
        if held is not None:
            part.variable.constraint = lasting(held.other)
    return layer


def zero_pruned(variable: Any, mask: np.ndarray) -> None:
    """Sets pruned weights to zero now."""
    value = variable.numpy()
    if (value[~mask] != 0).any():
        variable.assign(np.where(mask, value, np.zeros_like(value)))
