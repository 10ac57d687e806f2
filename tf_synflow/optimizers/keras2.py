"""The optimizers for Keras 2; `tf_synflow.optimizers` says what they do."""

from typing import Any

import tensorflow as tf

from tf_synflow.keras2.imports import keras
from tf_synflow.optimizers.checks import check_garipov, check_grda, check_sgd


@keras.saving.register_keras_serializable("tf_synflow")
class GRDA(keras.optimizers.Optimizer):
    """See `tf_synflow.optimizers.GRDA`. l is a float64 number."""

    def __init__(
        self,
        learning_rate: Any = 0.1,
        c: float = 5e-4,
        mu: float = 0.51,
        name: str = "GRDA",
        **kwargs: Any,
    ):
        """See `tf_synflow.optimizers.GRDA`."""
        check_grda(learning_rate, c, mu, kwargs)
        kwargs.setdefault("weight_decay", None)
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.c = float(c)
        self.mu = float(mu)

    def _build_learning_rate(self, learning_rate: Any) -> Any:
        """Does the same as the base class, but keeps a number in float64."""
        if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return super()._build_learning_rate(learning_rate)
        with tf.init_scope():
            return tf.Variable(
                learning_rate, name="learning_rate", dtype=tf.float64, trainable=False
            )

    def build(self, var_list: list[Any]) -> None:
        """Makes v and l for each variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._duals = [
            self.add_variable_from_reference(
                variable, "dual", initial_value=tf.convert_to_tensor(variable)
            )
            for variable in var_list
        ]
        self._thresholds = []
        for variable in var_list:
            with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
                self._thresholds.append(
                    self.add_variable(
                        (), tf.float64, name=f"threshold/{variable._shared_name}"
                    )
                )
        self._built = True

    def update_step(self, gradient: Any, variable: Any) -> None:
        """One step of one variable (part of the interface of Keras's optimizers).

        Raises:
          ValueError: The gradient is sparse.
        """
        if isinstance(gradient, tf.IndexedSlices):
            raise ValueError(
                f"GRDA got a sparse gradient for {variable.name!r}, as an Embedding "
                "gives: its threshold moves every weight at every step. Use another "
                "optimizer, or a Dense layer on one-hot inputs"
            )
        place = self._index_dict[self._var_key(variable)]
        dual, threshold = self._duals[place], self._thresholds[place]
        rate = tf.cast(self.learning_rate, tf.float64)
        step = tf.cast(self.iterations + 1, tf.float64)
        # n^mu - (n-1)^mu without cancellation; log1p(-1) = -inf is right at n = 1.
        rise = -(step**self.mu) * tf.math.expm1(self.mu * tf.math.log1p(-1 / step))
        level = threshold + self.c * rate ** (self.mu + 0.5) * rise
        threshold.assign(level)
        # v_0 = w_0, even if weights were loaded after the optimizer was built.
        before = tf.where(step > 1, dual, variable)
        value = before - tf.cast(rate, variable.dtype) * gradient
        dual.assign(value)
        shrunk = tf.maximum(tf.abs(value) - tf.cast(level, variable.dtype), 0)
        variable.assign(tf.sign(value) * shrunk)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        rate = self._serialize_hyperparameter(self._learning_rate)
        own = {"learning_rate": rate, "c": self.c, "mu": self.mu}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tf_synflow")
class SGD(keras.optimizers.Optimizer):
    """See `tf_synflow.optimizers.SGD`."""

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        l2: float = 0.0,
        name: str = "SGD",
        **kwargs: Any,
    ):
        """See `tf_synflow.optimizers.SGD`."""
        check_sgd(learning_rate, momentum, l2)
        kwargs.setdefault("weight_decay", None)
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)
        self.l2 = float(l2)

    def build(self, var_list: list[Any]) -> None:
        """Makes b for each variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._momenta = [
            self.add_variable_from_reference(variable, "momentum")
            for variable in var_list
        ]
        self._built = True

    def update_step(self, gradient: Any, variable: Any) -> None:
        """One step of one variable (part of the interface of Keras's optimizers)."""
        rate = tf.cast(self.learning_rate, variable.dtype)
        momentum = self._momenta[self._index_dict[self._var_key(variable)]]
        slope = tf.convert_to_tensor(gradient) + self.l2 * variable
        buffer = momentum.assign(self.momentum * momentum + slope)
        step = slope + self.momentum * buffer if self.nesterov else buffer
        variable.assign_sub(rate * step)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        rate = self._serialize_hyperparameter(self._learning_rate)
        own = {"learning_rate": rate, "momentum": self.momentum}
        return {**super().get_config(), **own, "nesterov": self.nesterov, "l2": self.l2}


@keras.saving.register_keras_serializable("tf_synflow")
class GaripovDecay(keras.optimizers.schedules.LearningRateSchedule):
    """See `tf_synflow.optimizers.GaripovDecay`; computed in float64."""

    def __init__(self, learning_rate: float, epochs: int, steps: int):
        """See `tf_synflow.optimizers.GaripovDecay`."""
        check_garipov(learning_rate, epochs, steps)
        self.learning_rate = float(learning_rate)
        self.epochs = epochs
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, counted from 0."""
        epoch = tf.cast(step, tf.int64) // self.steps + 1
        done = tf.cast(epoch, tf.float64) / self.epochs
        factor = tf.clip_by_value(1 - (done - 0.5) / 0.4 * 0.99, 0.01, 1.0)
        return self.learning_rate * factor

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        rate = self.learning_rate
        return {"learning_rate": rate, "epochs": self.epochs, "steps": self.steps}
