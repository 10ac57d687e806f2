"""A network that is restored, pruned, measured and trained often, but traced once."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.experiments.data import Dataset
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.types import Masks
from tf_synflow.optimizers import SGD


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the network is trained: plain momentum 0.9 at a constant learning rate.

    Attributes:
      batch_size: Number of images in a step.
      learning_rate: The rate of every step.
      weight_decay: Weight decay, added to the gradient; see `optimizers.SGD`.
      temperature: T, which divides the logits in the loss.
      seed: Seeds the order of the images. Defaults to 0.
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    temperature: float
    seed: int = 0


class State(NamedTuple):
    """The loss and the gradient of a network.

    Attributes:
      loss: The mean loss at the temperature of training.
      gradient: The squared 2-norm of the loss's gradient with respect to all trainable
        weights that are not pruned.
      loss_at_1: The loss at T = 1.
      gradient_at_1: The squared 2-norm of the gradient at T = 1.
    """

    loss: float
    gradient: float
    loss_at_1: float
    gradient_at_1: float


class Bench:
    """A model, with masks that are kept beside it.

    Attributes:
      network: The model as a `Network`, from `frameworks.read`.
      sample: Images and labels for measuring and scoring.
    """

    def __init__(self, model: Any, data: Dataset, images: int, training: Training):
        """Takes a plain model of Keras 2.

        Args:
          model: The model; it is trained and pruned.
          data: The data set.
          images: Number of training images for measuring and scoring.
          training: How to train.
        """
        self.network = frameworks.read(model)
        self.sample = data.sample(images, training.seed)
        self._data, self._training = data, training
        self._batches: dict[int, list[tuple[Any, Any]]] = {}
        self._model = model
        self._masks = {
            name: tf.Variable(tf.ones(self.network.weights[name].shape))
            for name in self.network.prunable
        }
        self._optimizer = SGD(
            training.learning_rate, nesterov=False, l2=training.weight_decay
        )
        self._optimizer.build(model.trainable_variables)
        self._step = tf.function(self._one_step, reduce_retracing=True)
        self._measured = tf.function(self._loss_and_gradient)

    def weights(self) -> list[np.ndarray]:
        """The values of all variables."""
        return self._model.get_weights()

    def kernels(self) -> dict[str, np.ndarray]:
        """Name to value of the weights that can be pruned."""
        weights = self.network.weights
        return {name: weights[name].numpy() for name in self.network.prunable}

    def restore(self, weights: list[np.ndarray]) -> None:
        """Sets all variables to values from `weights()`; then nothing is pruned."""
        self._model.set_weights(weights)
        for mask in self._masks.values():
            mask.assign(tf.ones_like(mask))

    def prune(self, masks: Masks) -> None:
        """Zeroes the weights that the masks prune, now and in training."""
        for name, mask in masks.items():
            self._masks[name].assign(mask.astype("float32"))
        self._zero()

    def calibrate(self) -> None:
        """Sets BatchNormalization's statistics to those of the sample.

        At the start, the statistics are 0 and 1. After an epoch, they still lag behind
        the outputs that the layers have by then. So without this, inference mode would
        measure another network than the trained one.
        """
        norms = [
            call.layer
            for call in self.network.calls
            if isinstance(call.layer, keras.layers.BatchNormalization)
        ]
        before = [layer.momentum for layer in norms]
        for layer in norms:
            layer.momentum = 0.0
        self._model(self.sample[0], training=True)
        for layer, momentum in zip(norms, before, strict=True):
            layer.momentum = momentum

    def measure(self) -> State:
        """The loss and its gradient on the sample, in inference mode."""
        x, y = map(tf.constant, self.sample)
        own = self._measured(x, y, tf.constant(self._training.temperature))
        at_1 = self._measured(x, y, tf.constant(1.0))
        return State(*map(float, (*own, *at_1)))

    def train(self, first: int, epochs: int) -> list[float]:
        """Trains the network as it is; the momentum is 0 at first.

        Args:
          first: The epoch to begin with, counted from 0. It determines the order of the
            images.
          epochs: Number of epochs.

        Returns:
          The mean training loss of each epoch.
        """
        for variable in self._optimizer.variables:
            if variable.dtype.is_floating and variable.shape.rank:
                variable.assign(tf.zeros_like(variable))
        losses = []
        for epoch in range(first, first + epochs):
            parts = [(self._step(x, y), len(y)) for x, y in self._epoch(epoch)]
            total = sum(float(loss) * count for loss, count in parts)
            losses.append(total / sum(count for _, count in parts))
        return losses

    def _epoch(self, epoch: int) -> list[tuple[Any, Any]]:
        """The batches of an epoch; they are kept until a much later epoch is needed."""
        if epoch not in self._batches:
            for old in [number for number in self._batches if number < epoch - 8]:
                del self._batches[old]
            size, seed = self._training.batch_size, self._training.seed
            batches = self._data.training(size, seed, epoch)
            self._batches[epoch] = list(batches.take(self._data.steps(size)))
        return self._batches[epoch]

    def _zero(self) -> None:
        for name, mask in self._masks.items():
            variable = self.network.weights[name]
            variable.assign(variable * mask)

    def _loss(self, x: Any, y: Any, temperature: Any, training: bool) -> Any:
        logits = self._model(x, training=training) / temperature
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return tf.reduce_mean(losses)

    def _one_step(self, x: Any, y: Any) -> Any:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._loss(x, y, self._training.temperature, True)
        gradients = tape.gradient(loss, variables)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._zero()
        return loss

    def _loss_and_gradient(self, x: Any, y: Any, temperature: Any) -> tuple[Any, Any]:
        variables = self._model.trainable_variables
        masks = {id(self.network.weights[n]): mask for n, mask in self._masks.items()}
        with tf.GradientTape() as tape:
            loss = self._loss(x, y, temperature, False)
        gradients = tape.gradient(loss, variables)
        kept = [
            g * masks[id(v)] if id(v) in masks else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        return loss, tf.add_n([tf.reduce_sum(g**2) for g in kept])
