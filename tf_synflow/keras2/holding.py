"""Holds the pruned weights of a model at zero while it is trained."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.constraints import constrain, mask_variable, zero_pruned
from tf_synflow.keras2.reading import (
    lay_flat,
    mask_variables,
    with_masks,
    wrapped_weights,
)
from tf_synflow.masks.types import Masks
from tf_synflow.network import Call, Network


class Holder:
    """The masks of one model, for a callback; see `pruning.callbacks`.

    `look` has to be called first, and again when other code may have pruned the model.
    """

    def __init__(self, model: Any):
        """Takes a built and compiled model."""
        self._model = model
        self._flat = lay_flat(model)
        self._pairs: dict[str, tuple[Any, Any]] = {}
        self._wrapped: set[int] = set()
        self._held: Masks = {}  # the masks that `take` was given

    def look(self) -> None:
        """Finds the masks that the model has now, whatever code wrote them."""
        self._pairs = mask_variables(self._flat.calls)
        self._wrapped = wrapped_weights(self._flat.calls)

    def network(self) -> Network:
        """The model as a `Network` with the masks that it has now."""
        return with_masks(self._flat)

    @property
    def masks(self) -> Masks:
        """Name to boolean array, True where a weight is kept; empty before pruning."""
        return {n: mask.numpy().astype(bool) for n, (_, mask) in self._pairs.items()}

    def count(self) -> tuple[int, int]:
        """How many weights are kept, and how many weights have masks."""
        masks = self.masks.values()
        kept = sum(int(np.count_nonzero(mask)) for mask in masks)
        return kept, sum(mask.size for mask in masks)

    def begin(self) -> None:
        """Adds constraints that keep pruned weights at zero, if they are missing."""
        self._trace_again(hold(self._flat.calls))

    def take(self, masks: Masks) -> None:
        """Writes masks into the wrappers, or into new variables without a wrapper."""
        pairs = mask_variables(self._flat.calls)
        with self._model.distribute_strategy.scope():
            for name, mask in masks.items():
                if name not in pairs:
                    weight = self._flat.weights[name]
                    pairs[name] = (weight, mask_variable(mask))
                pairs[name][1].assign(mask.astype("float32"))
        new = [constrain(n, weight, mask) for n, (weight, mask) in pairs.items()]
        self._held = masks
        self.look()
        self.zero()
        self._trace_again(any(new))

    def mend(self) -> int:
        """Zeroes pruned weights; returns how many of them had come back."""
        back = sum(
            self._revived(name, weight, mask)
            for name, (weight, mask) in self._pairs.items()
        )
        self.zero()
        return back

    def zero(self) -> None:
        """Zeroes pruned weights, and their averages in the optimizer."""
        for weight, mask in self._pairs.values():
            zero_pruned(weight, mask)
        self.zero_averages()

    @property
    def has_averages(self) -> bool:
        """Whether the optimizer keeps averages, which no constraint reaches."""
        return bool(getattr(self._optimizer(), "use_ema", False))

    def _optimizer(self) -> Any:
        optimizer = self._model.optimizer
        # Under mixed_float16 Keras puts an optimizer around the optimizer.
        return getattr(optimizer, "inner_optimizer", optimizer)

    def zero_averages(self) -> None:
        """Zeroes the averages of pruned weights that `use_ema=True` makes."""
        if not self._pairs or not self.has_averages:
            return
        optimizer = self._optimizer()
        # Neither attribute exists before the optimizer's first step.
        averages = getattr(optimizer, "_model_variables_moving_average", [])
        places = getattr(optimizer, "_index_dict", {})
        for weight, mask in self._pairs.values():
            place = places.get(optimizer._var_key(weight))
            if place is not None and averages:
                zero_pruned(averages[place], mask)

    def _revived(self, name: str, weight: Any, mask: Any) -> int:
        """How many pruned weights have come back; an old mask is corrected."""
        now = mask.numpy().astype(bool)
        held = self._held.get(name, now)
        back = now & ~held
        if back.any():
            mask.assign((now & held).astype("float32"))
        if id(weight) not in self._wrapped:  # a wrapper zeroes its weights itself
            back = (weight.numpy() != 0) & ~(now & held)
        return int(np.count_nonzero(back))

    def _trace_again(self, new: bool) -> None:
        """Traces the training step again, so that it has the new constraints."""
        if new and self._model.train_function is not None:
            self._model.make_train_function(force=True)


def hold(calls: tuple[Call, ...]) -> bool:
    """Adds constraints that keep the pruned weights of a model at zero in training.

    Returns:
      Whether a constraint is new; see `constrain`.
    """
    pairs = mask_variables(calls).items()
    new = [constrain(name, weight, mask) for name, (weight, mask) in pairs]
    for call in calls:
        if call.wrapper is not None:
            # At -1 tfmot stops training and demands its own callback.
            step = call.wrapper.pruning_step
            step.assign(tf.maximum(step, 0))
    return any(new)
