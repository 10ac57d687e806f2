"""Compares the outputs of a file with those of Keras, up to rounding."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_synflow import frameworks

# Largest allowed difference to Keras, over how much an output varies from sample to
# sample. Float32 kernels that sum in another order differ by 1e-6 or so. A wrong weight
# makes a far larger difference than this.
TOLERANCE = 1e-4

# If outputs vary little, compared with the terms that they sum, rounding changes them
# by more than TOLERANCE. So the effect of rounding is measured: inputs and weights are
# changed at random by one unit in the last place. A file may differ by this many times
# the effect.
ROUNDINGS = 16


class Comparison:
    """Compares outputs with those of Keras on the same inputs."""

    def __init__(self, model: Any, inputs: Sequence[np.ndarray]):
        """Computes the outputs of Keras.

        Args:
          model: The Keras model, without wrappers.
          inputs: An array for each input of the model.
        """
        self._model = model
        self._inputs = inputs
        self._expected = self._run(inputs)

    def __call__(self, path: Path, found: Mapping[str, Any]) -> tuple[float, float]:
        """Compares outputs; returns the largest difference and the largest output.

        Args:
          path: The file, for error messages.
          found: The outputs of the file by name: `output_0`, `output_1` and so on.

        Raises:
          ValueError: The file does not compute what Keras does.
        """
        difference = largest = 0.0
        for i, want in enumerate(self._expected):
            have = np.asarray(found[f"output_{i}"]).astype("float64")
            off, scale = self._compare(path, i, have, want)
            difference, largest = max(difference, off), max(largest, scale)
        return difference, largest

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        adapter = frameworks.adapter_of(self._model)
        outputs = adapter.outputs_of(self._model, inputs)
        return [y.astype("float64") for y in outputs]

    def _compare(
        self, path: Path, i: int, have: np.ndarray, want: np.ndarray
    ) -> tuple[float, float]:
        wrong = f"{path.name} does not compute what Keras does: output {i} "
        if have.shape != want.shape:
            raise ValueError(
                f"{wrong}has the shape {have.shape}, not {want.shape}. It was not "
                "written"
            )
        finite = np.isfinite(want)
        if want.size and not finite.any():
            raise ValueError(
                f"Keras gives only NaN and infinities for output {i}, so no file can "
                "be compared with it: give other inputs, as data=, or repair the "
                "weights"
            )
        unequal = ~finite & (have != want) & ~(np.isnan(have) & np.isnan(want))
        if unequal.any() or not np.isfinite(have[finite]).all():
            raise ValueError(
                f"{wrong}is NaN or infinite for the one and not for the other. It was "
                "not written"
            )
        highest = np.max(want, 0, keepdims=True, where=finite, initial=-np.inf)
        lowest = np.min(want, 0, keepdims=True, where=finite, initial=np.inf)
        spread = _by_unit(highest - lowest)  # from sample to sample
        have, want = np.where(finite, have, 0), np.where(finite, want, 0)
        off = np.abs(have - want)
        allowed = TOLERANCE * spread
        if (_by_unit(off) > allowed).any():
            allowed = allowed + ROUNDINGS * self._rounding(i)
        if (bad := _by_unit(off) > allowed).any():
            worst = int(np.argmax(np.where(bad, _by_unit(off), 0)))
            raise ValueError(
                f"{wrong}differs by {_by_unit(off)[worst]:.3g} where it varies by "
                f"{spread[worst]:.3g} over the data; at most {allowed[worst]:.3g} is "
                "allowed. It was not written"
            )
        return float(off.max(initial=0)), float(np.abs(want).max(initial=0))

    def _rounding(self, i: int) -> np.ndarray:
        """The effect of rounding on each unit or channel of output `i`.

        All inputs and weights are changed at random by one unit in the last place.
        """
        generator = np.random.default_rng(0)

        def nudged(x: np.ndarray) -> np.ndarray:
            if not np.issubdtype(x.dtype, np.floating):
                return x
            steps = generator.integers(-1, 2, x.shape) * np.finfo(x.dtype).eps
            return (x * (1 + steps)).astype(x.dtype)

        weights = self._model.get_weights()
        self._model.set_weights([nudged(weight) for weight in weights])
        try:
            outputs = self._run([nudged(x) for x in self._inputs])
        finally:
            self._model.set_weights(weights)
        want = self._expected[i]
        change = np.abs(outputs[i] - want) + np.finfo("float32").eps * np.abs(want)
        return _by_unit(np.where(np.isfinite(change), change, 0))


def _by_unit(x: np.ndarray) -> np.ndarray:
    """The largest value of each entry of the last axis, which is a unit or channel."""
    return x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1).max(axis=0, initial=0)
