"""The optimizers for Keras 3; `tf_synflow.optimizers` says what they do.

Not every backend computes in float64. So GRDA keeps its threshold l, a sum of very many
small increments, in two numbers: the sum, and what rounding has taken from it so far
(Kahan's summation). Both numbers are float32, or float64 for a float64 variable.
"""

from typing import Any

from tf_synflow.keras3.imports import keras
from tf_synflow.optimizers.checks import check_garipov, check_grda, check_sgd

ops = keras.ops


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
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)
        self.l2 = float(l2)

    def build(self, variables: list[Any]) -> None:
        """Makes b for each variable."""
        if not self.built:
            super().build(variables)
            self._momenta = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable (part of the interface of Keras's optimizers)."""
        rate = ops.cast(learning_rate, variable.dtype)
        buffer = self._momenta[self._get_variable_index(variable)]
        slope = ops.cast(ops.convert_to_tensor(gradient), variable.dtype)
        slope = slope + self.l2 * variable
        new = self.momentum * buffer + slope
        self.assign(buffer, new)
        step = slope + self.momentum * new if self.nesterov else new
        self.assign_sub(variable, rate * step)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        own = {"momentum": self.momentum, "nesterov": self.nesterov, "l2": self.l2}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tf_synflow")
class GRDA(keras.optimizers.Optimizer):
    """See `tf_synflow.optimizers.GRDA`."""

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
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.c = float(c)
        self.mu = float(mu)

    def build(self, variables: list[Any]) -> None:
        """Makes v and l for each variable."""
        if self.built:
            return
        super().build(variables)
        self._duals = self.add_optimizer_variables(variables, "dual")
        self._thresholds, self._lost = (
            [self.add_variable((), dtype=_precision(v), name=name) for v in variables]
            for name in ("threshold", "threshold_lost")
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one variable (part of the interface of Keras's optimizers)."""
        place = self._get_variable_index(variable)
        dual, threshold = self._duals[place], self._thresholds[place]
        lost = self._lost[place]
        rate = ops.cast(learning_rate, _precision(variable))
        step = ops.cast(self.iterations + 1, _precision(variable))
        # n^mu - (n-1)^mu without cancellation; at n = 1 it is 1.
        before = ops.log1p(-1 / ops.maximum(step, 2.0))
        rise = ops.where(
            step > 1,
            -(step**self.mu) * ops.expm1(self.mu * before),
            ops.ones_like(step),
        )
        more = self.c * rate ** (self.mu + 0.5) * rise - lost
        level = threshold + more
        self.assign(lost, (level - threshold) - more)
        self.assign(threshold, level)
        # v_0 = w_0, even if weights were loaded after the optimizer was built. Both are
        # tensors here: JAX takes no variables as arguments of a traced function.
        dual_now, weights = map(ops.convert_to_tensor, (dual, variable))
        start = ops.where(step > 1, dual_now, weights)
        slope = ops.cast(ops.convert_to_tensor(gradient), variable.dtype)
        value = start - ops.cast(rate, variable.dtype) * slope
        self.assign(dual, value)
        shrunk = ops.maximum(ops.abs(value) - ops.cast(level, variable.dtype), 0.0)
        self.assign(variable, ops.sign(value) * shrunk)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        return {**super().get_config(), "c": self.c, "mu": self.mu}


@keras.saving.register_keras_serializable("tf_synflow")
class GaripovDecay(keras.optimizers.schedules.LearningRateSchedule):
    """See `tf_synflow.optimizers.GaripovDecay`."""

    def __init__(self, learning_rate: float, epochs: int, steps: int):
        """See `tf_synflow.optimizers.GaripovDecay`."""
        check_garipov(learning_rate, epochs, steps)
        self.learning_rate = float(learning_rate)
        self.epochs = epochs
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, counted from 0."""
        epoch = ops.floor_divide(ops.cast(step, "int32"), self.steps) + 1
        done = ops.cast(epoch, keras.backend.floatx()) / self.epochs
        return self.learning_rate * ops.clip(1 - (done - 0.5) / 0.4 * 0.99, 0.01, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        rate = self.learning_rate
        return {"learning_rate": rate, "epochs": self.epochs, "steps": self.steps}


def _precision(variable: Any) -> str:
    return "float64" if variable.dtype == "float64" else "float32"
