"""A network as a function of one vector, which holds all its trainable weights."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.experiments.data import Dataset
from tf_synflow.keras2.imports import keras

Vector = np.ndarray  # float64, (number of trainable weights,)

_BATCH = 2048  # images computed at once; the results do not depend on it


class Quality(NamedTuple):
    """How well a network does on some images.

    Attributes:
      loss: Mean cross-entropy.
      accuracy: Share of the images that are classified correctly, 0 to 1.
    """

    loss: float
    accuracy: float


class FlatNetwork:
    """A network's loss, its gradient and its Hessian at any vector of weights.

    The network is in inference mode, and images are used as they are, without crops and
    mirroring.

    Attributes:
      names: Name of each trainable weight, in the order in which the vector has them.
      shapes: Shape of each trainable weight, in the same order.
      size: Length of the vector.
    """

    def __init__(self, model: Any, data: Dataset):
        """Takes a network of Keras 2; most methods set its weights.

        Args:
          model: The network; it returns logits. If it is in float64, all results are
            computed in float64.
          data: The images.

        Raises:
          ValueError: The network has BatchNormalization. Its statistics belong to one
            vector of weights, and not to other vectors near it.
        """
        norms = [x.name for x in model.layers if "BatchNorm" in type(x).__name__]
        if norms:
            raise ValueError(
                f"{model.name!r} has BatchNormalization ({norms[0]!r}), whose "
                "statistics belong to one set of weights and not to those around it; "
                "choose a network without, such as small_cnn or vgg16_dropout"
            )
        self.model = model
        self.variables = model.trainable_variables
        self.names = [v.name.removesuffix(":0") for v in self.variables]
        self.shapes = [tuple(v.shape) for v in self.variables]
        self.size = sum(int(np.prod(shape)) for shape in self.shapes)
        self._data = data
        self._type = self.variables[0].dtype
        self._summed = tf.function(self._sums, reduce_retracing=True)
        self._sloped = tf.function(self._slope, reduce_retracing=True)
        self._curved = tf.function(self._product, reduce_retracing=True)

    def vector(self) -> Vector:
        """The weights that the network has now."""
        return np.concatenate([v.numpy().ravel() for v in self.variables]).astype("f8")

    def parts(self, vector: Vector) -> dict[str, np.ndarray]:
        """The weights in a vector by their names, each in its shape."""
        return dict(zip(self.names, self._split(vector), strict=True))

    def set(self, vector: Vector) -> None:
        """Gives the network the weights of a vector."""
        for variable, value in zip(self.variables, self._split(vector), strict=True):
            variable.assign(value)

    def quality(self, vector: Vector, which: str = "train") -> Quality:
        """Loss and accuracy on all images, of "train" or of "test"."""
        self.set(vector)
        sums, count = np.zeros(2), len(getattr(self._data, which)[1])
        for x, y in self._batches(which):
            sums += np.array([float(number) for number in self._summed(x, y)])
        return Quality(*(float(number) for number in sums / count))

    def gradient(self, vector: Vector, x: Any, y: Any) -> Vector:
        """The gradient of the mean loss over a batch of normalised images."""
        self.set(vector)
        slope = self._sloped(tf.cast(x, self._type), y)
        return _joined(slope) / len(y)

    def hessian_times(self, direction: Vector) -> Vector:
        """The product of the Hessian of the mean training loss and a direction.

        The Hessian is that at the weights that were set last. The product is the
        gradient of g'v with v held fixed (Pearlmutter 1994), so that the Hessian itself
        is never formed.
        """
        parts = [tf.constant(part, self._type) for part in self._split(direction)]
        total = np.zeros(self.size)
        for x, y in self._batches("train"):
            total += _joined(self._curved(x, y, parts))
        return total / len(self._data.train[1])

    def _split(self, vector: Vector) -> list[np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        pieces = np.split(np.asarray(vector).ravel(), ends)
        return [p.reshape(s) for p, s in zip(pieces, self.shapes, strict=True)]

    def _batches(self, which: str) -> Iterator[tuple[Any, Any]]:
        images, labels = getattr(self._data, which)
        for start in range(0, len(labels), _BATCH):
            x = self._data.normalised(images[start : start + _BATCH])
            yield tf.cast(x, self._type), tf.constant(labels[start : start + _BATCH])

    def _loss(self, x: Any, y: Any) -> tuple[Any, Any]:
        logits = self.model(x, training=False)
        losses = keras.losses.sparse_categorical_crossentropy(y, logits, True)
        return tf.reduce_sum(losses), logits

    def _sums(self, x: Any, y: Any) -> tuple[Any, Any]:
        loss, logits = self._loss(x, y)
        right = tf.argmax(logits, -1) == tf.cast(y, tf.int64)
        return loss, tf.reduce_sum(tf.cast(right, tf.float64))

    def _slope(self, x: Any, y: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            loss, _ = self._loss(x, y)
        return tape.gradient(loss, self.variables)

    def _product(self, x: Any, y: Any, direction: list[Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            slopes = self._slope(x, y)
            along = [
                tf.reduce_sum(g * v) for g, v in zip(slopes, direction, strict=True)
            ]
            along = tf.add_n(along)
        return tape.gradient(
            along, self.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )


def _joined(parts: list[Any]) -> Vector:
    return np.concatenate([part.numpy().ravel() for part in parts]).astype("f8")
