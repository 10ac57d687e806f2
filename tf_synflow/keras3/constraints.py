"""The constraint that keeps pruned weights at zero, and carries their mask."""

import base64
import contextlib
import contextvars
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_synflow.keras3.imports import keras

# Deflate's fastest level: the others save a few percent and take up to 30 times longer.
_LEVEL = 1

_masks_left_out = contextvars.ContextVar("masks_left_out", default=False)


@keras.saving.register_keras_serializable("tf_synflow")
class KeepPruned(keras.constraints.Constraint):
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
            mask = _unpacked(mask)
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
        mask = None if _masks_left_out.get() else _packed(self.mask)
        return {"mask": mask, "other": keras.constraints.serialize(self.other)}


@contextlib.contextmanager
def masks_left_out() -> Iterator[None]:
    """Leaves masks out of configurations, for copies that get their own."""
    token = _masks_left_out.set(True)
    try:
        yield
    finally:
        _masks_left_out.reset(token)


def _packed(mask: np.ndarray) -> dict[str, Any]:
    bits = zlib.compress(np.packbits(mask).tobytes(), _LEVEL)
    return {"shape": list(mask.shape), "bits": base64.b64encode(bits).decode("ascii")}


def _unpacked(packed: dict[str, Any]) -> np.ndarray:
    shape = tuple(int(size) for size in packed["shape"])
    size = int(np.prod(shape, dtype=np.int64))
    if size < 0 or min(shape, default=0) < 0:
        raise ValueError(f"a mask cannot have the shape {shape}")
    wanted = -(-size // 8)
    # Never more than the shape says, whatever a damaged file would unpack to.
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(packed["bits"]), wanted + 1)
    if len(data) != wanted:
        raise ValueError(
            f"the mask of a weight of shape {shape} is damaged: it has {len(data)} "
            f"bytes, expected {wanted}"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=size)
    return bits.astype(bool).reshape(shape)


# Names of the constraint of each weight that can be pruned, as layers spell them.
_ATTRIBUTES = {
    "kernel": "kernel_constraint",
    "pointwise_kernel": "pointwise_constraint",
}


def constrain(layer: Any, short: str, variable: Any, mask: np.ndarray) -> bool:
    """Gives a weight the constraint that keeps its pruned entries zero.

    Args:
      layer: The layer. It writes the constraint into its configuration, if it has an
        attribute for it ("kernel_constraint").
      short: The weight's short name.
      variable: The weight.
      mask: Boolean array of its shape.

    Returns:
      Whether it is new to the variable: a training function traced before does not
      know of it.
    """
    old = variable.constraint
    if isinstance(old, KeepPruned):
        if old.mask is mask or np.array_equal(old.mask, mask):
            return False
        old = old.other
    variable.constraint = KeepPruned(mask, old)
    attribute = _ATTRIBUTES.get(short, f"{short}_constraint")
    if hasattr(layer, attribute):
        setattr(layer, attribute, variable.constraint)
    return True


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
        return keras.ops.where(self.kept, w, keras.ops.zeros_like(w))


def hold_zero(variable: Any, kept: np.ndarray) -> None:
    """Zeroes a variable where `kept` is False, now and in training; see `HoldZero`."""
    old = variable.constraint
    constraint = HoldZero(kept, old.other if isinstance(old, HoldZero) else old)
    variable.assign(constraint(variable.value))
    # Not the layer's: files do not carry it.
    variable.constraint = constraint


def unconstrained(layer: Any) -> Any:
    """An unbuilt layer, with the constraints that it had before it was pruned."""
    for attribute, value in list(vars(layer).items()):
        if isinstance(value, KeepPruned):
            setattr(layer, attribute, value.other)
    return layer


def zero_pruned(variable: Any, mask: np.ndarray) -> None:
    """Sets pruned weights to zero now."""
    value = variable.numpy()
    if (value[~mask] != 0).any():
        variable.assign(np.where(mask, value, np.zeros_like(value)))
