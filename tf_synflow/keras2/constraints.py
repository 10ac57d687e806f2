"""The constraint that keeps pruned weights at zero, and carries their mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.imports import keras
from tf_synflow.keras2.weights import kind_of, layer_parts
from tf_synflow.masks.packing import packed, unpacked
from tf_synflow.network.constraint_settings import (
    HoldsMask,
    HoldsZero,
    JoinedMasks,
    configure,
    every_layer,
    held_by,
    lasting,
    masks_are_left_out,
    release,
)


def mask_variable(mask: np.ndarray) -> Any:
    """A variable that holds a mask, 1 where a weight is kept."""
    return tf.Variable(
        mask.astype("float32"),
        trainable=False,
        aggregation=tf.VariableAggregation.MEAN,
    )


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPruned(HoldsMask, keras.constraints.Constraint):
    """Zeroes pruned weights after each update.

    Keras optimizers apply a variable's constraint inside the training step, after the
    update. So pruned weights are zero after every step: for every callback in any
    order, in `train_on_batch` and in custom loops.

    Where tfmot's wrapper cannot hold a mask, this constraint and its mask are in the
    layer's configuration, and so in saved files.
    """

    def __init__(self, mask: Any, other: Any = None):
        """Makes the constraint.

        Args:
          mask: Variable of the weight's shape, 1 where the weight is kept; or the
            packed mask that `get_config` wrote.
          other: The constraint that the weight had before, which is applied first; or
            the configuration of that constraint. Defaults to None.

        Raises:
          ValueError: The packed mask is damaged.
        """
        if isinstance(mask, Mapping):
            mask = mask_variable(unpacked(mask))
        self.mask = mask
        self.other = keras.constraints.get(other)

    def __call__(self, w: Any) -> Any:
        """The constrained weight."""
        w = w if self.other is None else self.other(w)
        # Not w * mask: the product is NaN where a diverged weight is NaN or infinite.
        return tf.where(tf.cast(self.mask, tf.bool), w, tf.zeros_like(w))

    def get_config(self) -> dict[str, Any]:
        """The arguments as Keras saves them, with the mask as packed, deflated bits."""
        left_out = masks_are_left_out.get() or self.mask is None
        mask = None if left_out else packed(self.mask.numpy().astype(bool))
        return {"mask": mask, "other": keras.constraints.serialize(lasting(self.other))}


class HoldZero(HoldsZero, keras.constraints.Constraint):
    """Zeroes entries along a variable's last axis after each update."""

    def __call__(self, w: Any) -> Any:
        """The constrained variable."""
        w = w if self.other is None else self.other(w)
        return tf.where(self.kept, w, tf.zeros_like(w))


def hold_zero(variable: Any, kept: np.ndarray) -> None:
    """Zeroes a variable where `kept` is False, now and in training; see `HoldZero`."""
    constraint = HoldZero(kept, variable.constraint)
    variable.assign(constraint(tf.identity(variable)))
    _set_constraint(variable, constraint)


def _set_constraint(variable: Any, constraint: Any) -> None:
    variable = getattr(variable, "_variable", variable)  # inside an AutoCastVariable
    for component in getattr(variable, "values", [variable]):
        component._constraint = constraint


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPrunedParts(JoinedMasks, keras.constraints.Constraint):
    """Joins the constraints of weights for which their layer has one setting."""

    single = KeepPruned

    def __call__(self, w: Any) -> Any:
        """The constrained weight.

        An optimizer passes the variable itself. Its name says which weight it is.
        """
        name = getattr(w, "name", "").split(":")[0].split("/replica_")[0]
        part = self.part(name)
        return w if part is None else part(w)


def constrain(short: str, variable: Any, mask: Any) -> bool:
    """Gives a variable the constraint that keeps its pruned weights zero.

    Args:
      short: Name or short name of the weight.
      variable: The weight: a plain, distributed or autocast variable.
      mask: Variable of the weight's shape, 1 where the weight is kept.

    Returns:
      Whether the constraint is new. A training function that was traced before does not
      know a new constraint.
    """
    old, other = held_by(short, variable), variable.constraint
    if old is not None:
        if variable.constraint is old and old.mask is mask:
            return False
        other = old.other
    _set_constraint(variable, KeepPruned(mask, other))
    return True


def write_into_settings(layer: Any) -> None:
    """Writes the constraints of a layer's weights into the layer's configuration."""
    configure(layer, layer_parts(layer), KeepPrunedParts, kind_of)
    _keep_backward(layer)


def unconstrained(layer: Any) -> Any:
    """Gives an unbuilt layer the constraints from before pruning, and returns it."""
    release(layer)
    _keep_backward(layer)
    return layer


def _keep_backward(layer: Any) -> None:
    """Renews the configuration of a backward layer that the user gave.

    Keras keeps nothing but this configuration.
    """
    for inner in every_layer(layer):
        if hasattr(inner, "_backward_layer_config"):
            new = keras.saving.serialize_keras_object(inner.backward_layer)
            inner._backward_layer_config = new


def zero_pruned(variable: Any, mask: Any) -> None:
    """Sets pruned weights to zero now."""
    kept = tf.cast(tf.identity(mask), tf.bool)
    value = tf.identity(variable)
    variable.assign(tf.where(kept, value, tf.zeros_like(value)))
