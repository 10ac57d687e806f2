"""Compares two equations of the gradient flow framework with a gradient flow.

Under the gradient flow dw/dt = -g of a loss L, g = dL/dw, the squared norm of the
weights follows

    d|w|^2/dt   = -2 w'g
    d2|w|^2/dt2 = 2 (|g|^2 + w'Hg)

where H is the Hessian. Here the flow is integrated with the classical Runge-Kutta
method in float64 over all of the data, and |w|^2 is differentiated along the flow by
finite differences.

In a smooth network both sides are equal. In a network with ReLU and max pooling the
gradient jumps wherever a unit changes sign for an image, or another pixel becomes the
largest. The flow crosses many such kinks, and their jumps act as a curvature that is
missing in H, as automatic differentiation computes it. So the second equation does not
hold there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.experiments.data import Dataset
from tf_synflow.keras2.imports import keras

# Coefficients of fourth-order finite differences at the middle of five points.
_FIRST = np.array([1, -8, 0, 8, -1]) / 12
_SECOND = np.array([-1, 16, -30, 16, -1]) / 12

NETWORKS = {
    "smooth": ("tanh", "AveragePooling2D"),
    "kinked": ("relu", "MaxPooling2D"),
}


def identities(
    data: Dataset,
    images: int = 200,
    times: int = 10,
    step: float = 0.001,
    temperature: float = 1.0,
    seed: int = 0,
    progress: Callable[[Any], Any] = iter,
) -> list[dict[str, Any]]:
    """Both sides of both equations along a gradient flow.

    Args:
      data: The data set.
      images: Number of images; the loss is the mean over them. Defaults to 200.
      times: At how many times to compare, 94 steps apart. Defaults to 10.
      step: Step of the finite differences. Between the times, the flow goes on in steps
        ten times as large. Defaults to 0.001.
      temperature: Divides the logits in the loss. Defaults to 1.
      seed: Seeds weights and images. Defaults to 0.
      progress: Wraps the times, as tqdm does.

    Returns:
      A row for each of `NETWORKS` and each time. It has the loss, the derivatives
      `first` and `second` by finite differences, and `first_formula` and
      `second_formula` by the formulas.
    """
    x, y = data.sample(images, seed)
    x = tf.image.resize(tf.cast(x, tf.float64), (8, 8), "area")
    rows = []
    for name, (activation, pooling) in NETWORKS.items():
        keras.utils.set_random_seed(seed)
        model = _network(activation, pooling, x.shape[1:], data.classes)
        flow = _Flow(model, tf.cast(x, tf.float64), tf.constant(y), temperature)
        for number in progress(range(times)):
            norms = [flow.squared_norm()]
            for place in range(4):
                flow.advance(step)
                norms.append(flow.squared_norm())
                if place == 1:
                    loss, first, second = flow.formulas()
            rows.append(
                {
                    "network": name,
                    "time": (94 * number + 2) * step,
                    "loss": loss,
                    "first": float(_FIRST @ norms / step),
                    "first_formula": first,
                    "second": float(_SECOND @ norms / step**2),
                    "second_formula": second,
                }
            )
            for _ in range(9):
                flow.advance(10 * step)
    return rows


def _network(activation: str, pooling: str, shape: tuple, classes: int) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape, dtype="float64"),
            layers.Conv2D(8, 3, activation=activation, dtype="float64"),
            getattr(layers, pooling)(2, dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(16, activation=activation, dtype="float64"),
            layers.Dense(classes, dtype="float64"),
        ]
    )


class _Flow:
    """The gradient flow of the mean loss over some images."""

    def __init__(self, model: Any, x: Any, y: Any, temperature: float):
        self._model, self._x, self._y, self._temperature = model, x, y, temperature
        self._variables = model.trainable_variables
        self._gradient = tf.function(self._loss_and_gradient)
        self._product = tf.function(self._hessian_gradient)

    def squared_norm(self) -> float:
        return float(sum(tf.reduce_sum(v**2) for v in self._variables))

    def formulas(self) -> tuple[float, float, float]:
        """The loss, -2 w'g and 2 (|g|^2 + w'Hg)."""
        loss, gradient, product = self._product()
        w = [tf.identity(v) for v in self._variables]
        wg, gg, whg = (
            float(sum(tf.reduce_sum(a * b) for a, b in zip(one, other, strict=True)))
            for one, other in ((w, gradient), (gradient, gradient), (w, product))
        )
        return float(loss), -2 * wg, 2 * (gg + whg)

    def advance(self, step: float) -> None:
        """One step of the Runge-Kutta method of the fourth order."""
        start = [v.numpy() for v in self._variables]
        slopes: list[list[np.ndarray]] = []
        for share in (0.0, 0.5, 0.5, 1.0):
            if slopes:
                self._set(start, slopes[-1], -share * step)
            slopes.append([g.numpy() for g in self._gradient()[1]])
        mean = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(*slopes, strict=True)]
        self._set(start, mean, -step)

    def _set(self, start: list, slope: list, step: float) -> None:
        for variable, value, own in zip(self._variables, start, slope, strict=True):
            variable.assign(value + step * own)

    def _loss_and_gradient(self) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            logits = self._model(self._x) / self._temperature
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(self._y, logits)
            )
        return loss, tape.gradient(loss, self._variables)

    def _hessian_gradient(self) -> tuple[Any, list[Any], list[Any]]:
        with tf.GradientTape() as tape:
            loss, gradient = self._loss_and_gradient()
            held = [tf.stop_gradient(g) for g in gradient]
            slope = tf.add_n(
                [tf.reduce_sum(a * b) for a, b in zip(gradient, held, strict=True)]
            )
        return loss, gradient, tape.gradient(slope, self._variables)
