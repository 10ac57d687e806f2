"""The loss on the way from one solution to another: straight, and along a curve.

References:
  Garipov, Izmailov, Podoprikhin, Vetrov, Wilson. Loss surfaces, mode connectivity, and
  fast ensembling of DNNs. NeurIPS 2018. arXiv 1802.10026.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.directional.flat import FlatNetwork, Vector
from tf_synflow.optimizers import GaripovDecay

Curve = Callable[[float], Vector]


def straight(first: Vector, last: Vector) -> Curve:
    """The straight line from `first` at t = 0 to `last` at t = 1."""
    return lambda t: (1 - t) * first + t * last


def bezier(first: Vector, middle: Vector, last: Vector) -> Curve:
    """B(t) = (1 - t)^2 first + 2 t (1 - t) middle + t^2 last."""
    return lambda t: (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last


def fitted_middle(
    flat: FlatNetwork,
    first: Vector,
    last: Vector,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Any,
) -> Vector:
    """The middle point of a Bezier curve of low loss, found by SGD; the ends are fixed.

    The middle point begins in the middle of the straight line. For each batch, a t
    within 0 and 1 is drawn, and the middle point moves down the gradient of the loss at
    B(t), with momentum 0.9 and the learning rate of Garipov et al.

    Args:
      flat: The network.
      first: Where the curve begins.
      last: Where it ends.
      data: The training images.
      epochs: Number of passes over the training images.
      batch_size: Number of images in a step.
      learning_rate: Learning rate in the first half of the epochs.
      seed: Seeds t, and the order of the images.
      progress: A progress bar; its `update()` is called after each epoch.
    """
    middle = (first + last) / 2
    moved = np.zeros_like(middle)
    generator = np.random.default_rng(seed)
    batches = iter(data.training(batch_size, seed))
    steps = data.steps(batch_size)
    schedule = GaripovDecay(learning_rate, epochs, steps)
    for epoch in range(epochs):
        rate = float(schedule(epoch * steps))
        for _ in range(steps):
            t = generator.random()
            slope = flat.gradient(bezier(first, middle, last)(t), *next(batches))
            moved = 0.9 * moved + 2 * t * (1 - t) * slope
            middle = middle - rate * moved
        progress.update()
    return middle


def along(flat: FlatNetwork, curve: Curve, points: int) -> list[dict[str, float]]:
    """Losses and accuracies of the network along a curve.

    Args:
      flat: The network.
      curve: Function from t to the weights.
      points: How many values of t, from 0 to 1 at equal distances.

    Returns:
      A row for each `t`, with `train_loss`, `train_accuracy`, `test_loss` and
      `test_accuracy`.
    """
    rows = []
    for t in np.linspace(0, 1, points):
        row = {"t": float(t)}
        for which in ("train", "test"):
            found = flat.quality(curve(t), which)
            row[f"{which}_loss"], row[f"{which}_accuracy"] = found
        rows.append(row)
    return rows
