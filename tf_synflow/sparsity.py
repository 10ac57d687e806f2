"""SparsityCallback: logs how many weights are exactly zero."""

from typing import Any

from tf_synflow._compat import keras, tf


def sparsity(model: Any) -> float:
    """The fraction of a model's trainable weights that are exactly zero, 0 to 1."""
    weights = model.trainable_variables
    zeros = sum(int(tf.math.count_nonzero(tf.equal(w, 0))) for w in weights)
    size = sum(weight.shape.num_elements() for weight in weights)
    return zeros / size if size else 0.0


class SparsityCallback(keras.callbacks.Callback):
    """Adds `sparsity` to the logs of each epoch, for the history and what comes after.

    It is the fraction, 0 to 1, of all trainable weights (kernels, biases and
    normalisation alike) that are exactly zero: what an optimizer such as
    `tf_synflow.optimizers.GRDA` has pruned. It changes nothing. Place it before the
    callbacks that are to see the number.
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the sparsity."""
        if logs is not None:
            logs["sparsity"] = sparsity(self.model)
