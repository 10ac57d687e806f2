"""The papers' optimizers: SGD as PyTorch has it, and GRDA.

References:
  Chao, Wang, Xing, Cheng. Directional pruning of deep neural networks. NeurIPS 2020.
  arXiv 2006.09358 (GRDA: generalised regularised dual averaging).
"""

from typing import Any

import tensorflow as tf

from tf_synflow.keras2.imports import keras


@keras.saving.register_keras_serializable("tf_synflow")
class GRDA(keras.optimizers.Optimizer):
    """The optimizer of directional pruning: SGD whose weights become exactly zero.

    It trains and prunes at once: with learning rates lr_n, gradients g_n and v_0 = w_0,

        l_n = l_{n-1} + c lr_n^(mu + 1/2) (n^mu - (n-1)^mu)
        v_n = v_{n-1} - lr_n g_n
        w_n = sign(v_n) max(|v_n| - l_n, 0)

    so w_n is 0 wherever stochastic gradient descent would have kept |v_n| within the
    threshold l_n. At a constant lr, l_n = c lr^(1/2 + mu) n^mu; written with increments
    it survives a change of the learning rate.

    There is no momentum and no weight decay; the threshold applies to every trainable
    variable. The zeros are in the weights that the model computes with: they need no
    mask, and can come back. `tf_synflow.SparsityCallback` logs how many there are.

    Its state is, for each variable, v (the same shape and dtype) and l (a float64
    number). A model saved with it loads where tf_synflow is imported, and goes on
    training as if it had not stopped, from `.keras` and `.h5` files and checkpoints.
    (From a SavedModel or `.weights.h5` Keras restores no optimizer's state.) The
    weights follow from v: what else sets them in the middle of training
    (`set_weights`) lasts until the next step.

    ```python
    model.compile(tf_synflow.optimizers.GRDA(0.1, c=5e-4, mu=0.51), loss)
    model.fit(dataset, callbacks=[tf_synflow.SparsityCallback()])
    ```
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        c: float = 5e-4,
        mu: float = 0.51,
        name: str = "GRDA",
        **kwargs: Any,
    ):
        """Makes the optimizer.

        Args:
          learning_rate: lr, a float or a `LearningRateSchedule`; as for plain SGD.
            Defaults to 0.1.
          c: Strength of the threshold, >= 0; 0 is plain SGD. The paper has 0 < c <
            0.005. Defaults to 5e-4.
          mu: How fast the threshold grows, within (0.5, 1). The paper recommends 0.501,
            0.51 or 0.55. Defaults to 0.51.
          name: Name of the optimizer.
          **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm` or `jit_compile` of
            `keras.optimizers.Optimizer`.

        Raises:
          ValueError: The learning rate or c is negative, mu is outside (0.5, 1), or
            weight decay or averages of the weights are asked for, which the method does
            not have.
        """
        if isinstance(learning_rate, (int, float)) and not 0 <= learning_rate < 1e30:
            raise ValueError(
                f"learning_rate must be finite and not negative, got {learning_rate!r}"
            )
        if not 0 <= c < float("inf"):
            raise ValueError(f"c must be finite and not negative, got {c!r}")
        if not 0.5 < mu < 1:
            raise ValueError(f"mu must be within (0.5, 1), got {mu!r}")
        for unwanted in ("weight_decay", "use_ema"):
            if kwargs.get(unwanted):
                raise ValueError(
                    f"GRDA takes no {unwanted}={kwargs[unwanted]!r}: its weights "
                    "follow from v and the threshold alone, and would not stay 0"
                )
        kwargs.setdefault("weight_decay", None)
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.c = float(c)
        self.mu = float(mu)

    def _build_learning_rate(self, learning_rate: Any) -> Any:
        """Like the base class, but a number is kept as float64, as it was given."""
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
        # v_0 = w_0, also where weights were loaded after the optimizer was built.
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
    """Stochastic gradient descent as PyTorch writes it, and so as the papers train.

    With gradients g_n, learning rates lr_n, momentum m and b_0 = 0,

        d_n = g_n + l2 w_{n-1}
        b_n = m b_{n-1} + d_n
        w_n = w_{n-1} - lr_n (d_n + m b_n)   (with Nesterov momentum)
        w_n = w_{n-1} - lr_n b_n             (without)

    `keras.optimizers.SGD` differs in two ways: its `weight_decay` is decoupled (it is
    not a part of the gradient, and momentum does not see it), and its momentum holds
    steps, not gradients, so that a change of the learning rate comes late.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = True,
        l2: float = 0.0,
        name: str = "SGD",
        **kwargs: Any,
    ):
        """Makes the optimizer.

        Args:
          learning_rate: A float or a `LearningRateSchedule`. Defaults to 0.1.
          momentum: m, within [0, 1). Defaults to 0.9.
          nesterov: Which momentum. Defaults to True.
          l2: Weight decay, >= 0: the gradient of `l2 / 2 |w|^2`, of every trainable
            variable, BatchNormalization's and biases too. Defaults to 0.
          name: Name of the optimizer.
          **kwargs: Others of `keras.optimizers.Optimizer`.

        Raises:
          ValueError: A number is out of its range.
        """
        if isinstance(learning_rate, (int, float)) and not 0 <= learning_rate < 1e30:
            raise ValueError(
                f"learning_rate must be finite and not negative, got {learning_rate!r}"
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be within [0, 1), got {momentum!r}")
        if not 0 <= l2 < float("inf"):
            raise ValueError(f"l2 must be finite and not negative, got {l2!r}")
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
