"""The constraint that keeps pruned weights at zero while a model is trained."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.imports import keras


class KeepPruned(keras.constraints.Constraint):
    """Zeroes pruned weights after each update, so that nobody sees them otherwise.

    Keras optimizers apply a variable's constraint inside the training step, after the
    update; so the zeros hold for whoever looks, whatever the order of callbacks, in
    `train_on_batch` and in custom loops.
    """

    def __init__(self, mask: Any, other: Any = None):
        """Makes the constraint.

        Args:
          mask: Variable of the weight's shape and dtype, 1 where it is kept.
          other: The constraint that the weight had before, applied first.
        """
        self.mask = mask
        self.other = other

    def __call__(self, w: Any) -> Any:
        """The constrained weight."""
        w = w if self.other is None else self.other(w)
        # Not w * mask, which is NaN where a diverged weight is.
        return tf.where(tf.cast(self.mask, tf.bool), w, tf.zeros_like(w))


class HoldZero(keras.constraints.Constraint):
    """Zeroes a variable at places of its last axis after each update.

    It is no mask: what it holds at zero is not counted as pruned weights.
    """

    def __init__(self, kept: np.ndarray, other: Any = None):
        """Makes the constraint.

        Args:
          kept: Boolean vector along the last axis, False where it is 0.
          other: The constraint that the variable had before, applied first.
        """
        self.kept = kept
        self.other = other

    def __call__(self, w: Any) -> Any:
        """The constrained variable."""
        w = w if self.other is None else self.other(w)
        return tf.where(self.kept, w, tf.zeros_like(w))


def hold_zero(variable: Any, kept: np.ndarray) -> None:
    """Zeroes a variable where `kept` is False, now and in training; see `HoldZero`."""
    old = variable.constraint
    constraint = HoldZero(kept, old.other if isinstance(old, HoldZero) else old)
    variable.assign(constraint(tf.identity(variable)))
    _set_constraint(variable, constraint)


def _set_constraint(variable: Any, constraint: Any) -> None:
    variable = getattr(variable, "_variable", variable)  # an AutoCastVariable's own
    for component in getattr(variable, "values", [variable]):
        component._constraint = constraint


def constrain(variable: Any, mask: Any) -> bool:
    """Gives a variable the constraint that keeps its pruned weights zero.

    Args:
      variable: The weight: a plain, distributed or autocast variable.
      mask: Variable of its shape, 1 where it is kept.

    Returns:
      Whether that is new to the variable: a training function traced before does not
      know of it.
    """
    old = variable.constraint
    if isinstance(old, KeepPruned):
        if old.mask is mask:
            return False
        old = old.other
    _set_constraint(variable, KeepPruned(mask, old))
    return True


def zero_pruned(variable: Any, mask: Any) -> None:
    """Sets pruned weights to zero now."""
    kept = tf.cast(tf.identity(mask), tf.bool)
    value = tf.identity(variable)
    variable.assign(tf.where(kept, value, tf.zeros_like(value)))
