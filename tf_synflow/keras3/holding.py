"""Holds the pruned weights of a Keras 3 model at zero while it is trained."""

from typing import Any

import numpy as np

from tf_synflow.keras3.constraints import (
    constrain,
    write_into_settings,
    zero_pruned,
)
from tf_synflow.keras3.reading import held_masks, lay_flat, with_masks
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network


class Holder:
    """The masks of one model, for a callback; see `pruning.callbacks`.

    `look` has to be called first, and again when other code may have pruned the model.
    """

    def __init__(self, model: Any):
        """Takes a built and compiled model."""
        self._model = model
        self._flat = lay_flat(model)
        self._layers = self._flat.layers()
        self._held: Masks = {}

    def look(self) -> None:
        """Finds the masks that the model has now, whatever code wrote them."""
        self._held = held_masks(self._flat.weights)

    def network(self) -> Network:
        """The model as a `Network` with the masks that it has now."""
        return with_masks(self._flat)

    @property
    def masks(self) -> Masks:
        """Name to boolean array, True where a weight is kept; empty before pruning."""
        return dict(self._held)

    def count(self) -> tuple[int, int]:
        """How many weights are kept, and how many weights have masks."""
        kept = sum(int(np.count_nonzero(mask)) for mask in self._held.values())
        return kept, sum(mask.size for mask in self._held.values())

    def begin(self) -> None:
        """Gives each weight its own constraint, if the model's file has joined some."""
        self.take(self.masks)

    def take(self, masks: Masks) -> None:
        """Prunes the weights of the model by masks."""
        new = False
        for name, mask in masks.items():
            weight = self._flat.weights[name]
            new |= constrain(name, weight, mask)
        for call in self._layers.values():
            if call.weights:
                write_into_settings(call.layer)
        self.look()
        self.zero()
        # A training step that was traced before does not know a new constraint.
        if new and self._model.train_function is not None:
            self._model.make_train_function(force=True)

    def mend(self) -> int:
        """Zeroes pruned weights; returns how many of them had come back."""
        back = sum(
            int(np.count_nonzero(self._flat.weights[name].numpy()[~mask]))
            for name, mask in self._held.items()
        )
        self.zero()
        return back

    def zero(self) -> None:
        """Zeroes pruned weights, and their averages in the optimizer."""
        for name, mask in self._held.items():
            zero_pruned(self._flat.weights[name], mask)
        self.zero_averages()

    @property
    def has_averages(self) -> bool:
        """Whether the optimizer keeps averages, which no constraint reaches."""
        return bool(getattr(self._optimizer(), "use_ema", False))

    def zero_averages(self) -> None:
        """Zeroes the averages of pruned weights that `use_ema=True` makes."""
        if not self._held or not self.has_averages:
            return
        optimizer = self._optimizer()
        # The averages do not exist before the optimizer is built.
        averages = getattr(optimizer, "_model_variables_moving_average", None)
        for name, mask in self._held.items() if averages else ():
            place = optimizer._get_variable_index(self._flat.weights[name])
            zero_pruned(averages[place], mask)

    def _optimizer(self) -> Any:
        optimizer = getattr(self._model, "optimizer", None)
        # Under mixed_float16 Keras puts an optimizer around the optimizer.
        return getattr(optimizer, "inner_optimizer", optimizer)
