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
    """Zeroes pruned weights after each update, so that nobody sees them otherwise.

    Keras optimizers apply a variable's constraint inside the training step, after the
    update; so the zeros hold for whoever looks, whatever the order of callbacks, in
    `train_on_batch` and in custom loops.

    Where tfmot's wrapper cannot hold a mask, this constraint is in the layer's
    configuration, and so in its file, with the mask.
    """

    def __init__(self, mask: Any, other: Any = None):
        """Makes the constraint.

        Args:
          mask: Variable of the weight's shape, 1 where it is kept; or what `get_config`
            wrote of it.
          other: The constraint that the weight had before, applied first; or its
            configuration.

        Raises:
          ValueError: What `get_config` wrote is damaged.
        """
        if isinstance(mask, Mapping):
            mask = mask_variable(unpacked(mask))
        self.mask = mask
        self.other = keras.constraints.get(other)

    def __call__(self, w: Any) -> Any:
        """The constrained weight."""
        w = w if self.other is None else self.other(w)
        # Not w * mask, which is NaN where a diverged weight is.
        return tf.where(tf.cast(self.mask, tf.bool), w, tf.zeros_like(w))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them: the mask as packed, deflated bits."""
        left_out = masks_are_left_out.get() or self.mask is None
        mask = None if left_out else packed(self.mask.numpy().astype(bool))
        return {"mask": mask, "other": keras.constraints.serialize(lasting(self.other))}


class HoldZero(HoldsZero, keras.constraints.Constraint):
    """Zeroes a variable at places of its last axis after each update."""

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
    variable = getattr(variable, "_variable", variable)  # an AutoCastVariable's own
    for component in getattr(variable, "values", [variable]):
        component._constraint = constraint


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPrunedParts(JoinedMasks, keras.constraints.Constraint):
    """The constraints of several weights whose layer has one setting for all."""

    single = KeepPruned

    def __call__(self, w: Any) -> Any:
        """The constrained weight: optimizers give the variable itself."""
        name = getattr(w, "name", "").split(":")[0].split("/replica_")[0]
        part = self.part(name)
        return w if part is None else part(w)


def constrain(short: str, variable: Any, mask: Any) -> bool:
    """Gives a variable the constraint that keeps its pruned weights zero.

    Args:
      short: Its name or short name.
      variable: The weight: a plain, distributed or autocast variable.
      mask: Variable of its shape, 1 where it is kept.

    Returns:
      Whether that is new to the variable: a training function traced before does not
      know of it.
    """
    old, other = held_by(short, variable), variable.constraint
    if old is not None:
        if variable.constraint is old and old.mask is mask:
            return False
        other = old.other
    _set_constraint(variable, KeepPruned(mask, other))
    return True


def write_into_settings(layer: Any) -> None:
    """Has the configuration of a layer give the constraints of its weights."""
    configure(layer, layer_parts(layer), KeepPrunedParts, kind_of)
    _keep_backward(layer)


def unconstrained(layer: Any) -> Any:
    """An unbuilt layer, with the constraints that it had before it was pruned."""
    release(layer)
    _keep_backward(layer)
    return layer


def _keep_backward(layer: Any) -> None:
    """Of a backward layer that the user gave, Keras keeps the configuration only."""
    for inner in every_layer(layer):
        if hasattr(inner, "_backward_layer_config"):
            new = keras.saving.serialize_keras_object(inner.backward_layer)
            inner._backward_layer_config = new


def zero_pruned(variable: Any, mask: Any) -> None:
    """Sets pruned weights to zero now."""
    kept = tf.cast(tf.identity(mask), tf.bool)
    value = tf.identity(variable)
    variable.assign(tf.where(kept, value, tf.zeros_like(value)))
