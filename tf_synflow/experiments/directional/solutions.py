"""Makes the networks to compare: trained by SGD or GRDA, or pruned by magnitude."""

from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.directional.flat import Vector
from tf_synflow.experiments.recipe import Recipe, optimizer
from tf_synflow.keras2.imports import keras


def train(
    model: Any, data: Dataset, recipe: Recipe, keep: Collection[int], progress: Any
) -> dict[int, Vector]:
    """Trains a network, and keeps its weights from time to time.

    Args:
      model: The network, which is changed; it returns logits.
      data: The images. Their order follows from the recipe's seed alone.
      recipe: How to train. `seen`, `temperature`, `images` and `save_best` are ignored.
      keep: After how many epochs to keep the weights; 0 is before training.
      progress: A progress bar; its `update()` is called after each epoch.

    Returns:
      Number of epochs to all trainable weights in one vector.
    """
    steps = data.steps(recipe.batch_size)
    rule = optimizer(recipe, steps)
    variables = model.trainable_variables
    rule.build(variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    batches = iter(data.training(recipe.batch_size, recipe.seed))

    @tf.function
    def epoch(batches: Any) -> None:
        for _ in tf.range(steps):
            x, y = next(batches)
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            rule.apply_gradients(
                zip(tape.gradient(value, variables), variables, strict=True)
            )

    kept = {0: _vector(variables)} if 0 in keep else {}
    for number in range(1, recipe.epochs + 1):
        epoch(batches)
        progress.update()
        if number in keep:
            kept[number] = _vector(variables)
    return kept


def _vector(variables: list[Any]) -> Vector:
    return np.concatenate([v.numpy().ravel() for v in variables]).astype("f8")


def pruned_by_magnitude(vector: Vector, zeros: int) -> Vector:
    """The same weights, with the smallest ones set to 0.

    Args:
      vector: All weights.
      zeros: Number of weights to set to 0. Among equal weights, earlier ones come
        first.
    """
    found = vector.copy()
    found[np.argsort(np.abs(vector), kind="stable")[:zeros]] = 0
    return found
