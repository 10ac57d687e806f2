"""The papers' optimizers, for Keras 2 and Keras 3: SGD as in PyTorch, and GRDA.

The module also has `GaripovDecay`, the learning rate schedule of GRDA's paper.

References:
  Chao, Wang, Xing, Cheng. Directional pruning of deep neural networks. NeurIPS 2020.
  arXiv 2006.09358 (GRDA: generalised regularised dual averaging).
  Garipov, Izmailov, Podoprikhin, Vetrov, Wilson. Loss surfaces, mode connectivity, and
  fast ensembling of DNNs. NeurIPS 2018. arXiv 1802.10026 (the learning rate).
"""

import importlib
import sys
from typing import Any

from tf_synflow.checks import check_choice

_MODULES = {"tf_keras": "keras2", "keras": "keras3"}


def SGD(
    learning_rate: Any = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    l2: float = 0.0,
    *,
    keras: str = "tf_keras",
    **kwargs: Any,
) -> Any:
    """Makes SGD as PyTorch defines it; the papers train with this form.

    With gradients g_n, learning rates lr_n, momentum m and b_0 = 0,

        d_n = g_n + l2 w_{n-1}
        b_n = m b_{n-1} + d_n
        w_n = w_{n-1} - lr_n (d_n + m b_n)   (with Nesterov momentum)
        w_n = w_{n-1} - lr_n b_n             (without)

    `keras.optimizers.SGD` differs in two ways. Its `weight_decay` is decoupled: it is
    not a part of the gradient, and does not enter the momentum. And its momentum holds
    steps, not gradients, so that a change of the learning rate takes effect late.

    Args:
      learning_rate: A float or a `LearningRateSchedule`. Defaults to 0.1.
      momentum: m, within [0, 1). Defaults to 0.9.
      nesterov: Whether the momentum is Nesterov momentum. Defaults to True.
      l2: Weight decay, >= 0: the gradient of `l2 / 2 |w|^2` is added for every
        trainable variable, also for biases and those of BatchNormalization. Defaults to
        0.
      keras: "tf_keras" for models of Keras 2, "keras" for models of Keras 3. Defaults
        to "tf_keras".
      **kwargs: Other arguments of `keras.optimizers.Optimizer`, such as `name` or
        `clipnorm`.

    Returns:
      An optimizer of that Keras.

    Raises:
      ValueError: A number is out of its range, or there is no such Keras.
    """
    make = _module(keras).SGD
    return make(learning_rate, momentum, nesterov, l2, **kwargs)


def GRDA(
    learning_rate: Any = 0.1,
    c: float = 5e-4,
    mu: float = 0.51,
    *,
    keras: str = "tf_keras",
    **kwargs: Any,
) -> Any:
    """Makes the optimizer of directional pruning: SGD whose weights become zero.

    It trains and prunes at the same time. With learning rates lr_n, gradients g_n and
    v_0 = w_0,

        l_n = l_{n-1} + c lr_n^(mu + 1/2) (n^mu - (n-1)^mu)
        v_n = v_{n-1} - lr_n g_n
        w_n = sign(v_n) max(|v_n| - l_n, 0)

    v_n changes like the weights in stochastic gradient descent. So w_n is 0 wherever
    |v_n| stays within the threshold l_n. At a constant lr, l_n = c lr^(1/2 + mu) n^mu.
    The threshold is written as a sum of increments so that the learning rate may
    change.

    There is no momentum and no weight decay. The threshold applies to every trainable
    variable. The model computes with the zeros themselves. They need no mask, and a
    weight that is zero can become nonzero again. `tf_synflow.SparsityCallback` logs the
    share of zeros.

    The state of the optimizer is v and l for each variable. A model that was saved with
    this optimizer can be loaded once Keras and, after it, `tf_synflow.optimizers` are
    imported. From `.keras` and `.h5` files and checkpoints, training goes on as if it
    had not stopped. (From a SavedModel or a `.weights.h5` file, Keras restores no
    optimizer state.) Each step computes the weights from v. So if other code sets
    weights during training (`set_weights`), their values last only until the next step.

    ```python
    model.compile(tf_synflow.optimizers.GRDA(0.1, c=5e-4, mu=0.51), loss)
    model.fit(dataset, callbacks=[tf_synflow.SparsityCallback()])
    ```

    Args:
      learning_rate: lr, a float or a `LearningRateSchedule`, as for plain SGD. Defaults
        to 0.1.
      c: Strength of the threshold, >= 0; 0 is plain SGD. The paper has 0 < c < 0.005.
        Defaults to 5e-4.
      mu: How fast the threshold grows, within (0, 1). The paper recommends 0.501, 0.51
        or 0.55, and its theory needs more than 0.5; its experiments also try 0.4.
        Defaults to 0.51.
      keras: "tf_keras" for models of Keras 2, "keras" for models of Keras 3. Defaults
        to "tf_keras".
      **kwargs: `name`, `clipnorm`, `clipvalue`, `global_clipnorm` or `jit_compile` of
        `keras.optimizers.Optimizer`.

    Returns:
      An optimizer of that Keras.

    Raises:
      ValueError: The learning rate or c is negative, mu is outside (0, 1), weight decay
        or averages of the weights are asked for, which the method does not have, or
        there is no such Keras.
    """
    return _module(keras).GRDA(learning_rate, c, mu, **kwargs)


def GaripovDecay(
    learning_rate: float, epochs: int, steps: int, *, keras: str = "tf_keras"
) -> Any:
    """Makes the learning rate schedule of Garipov et al., constant within an epoch.

    In epoch e, counted from 1, with a = e / epochs, the learning rate is multiplied by

        1                              where a <= 0.5
        1 - 0.99 (a - 0.5) / 0.4       where 0.5 < a <= 0.9
        0.01                           where 0.9 < a

    Args:
      learning_rate: Learning rate in the first half of the epochs.
      epochs: Number of epochs, >= 1.
      steps: Number of steps in an epoch, >= 1.
      keras: "tf_keras" for models of Keras 2, "keras" for models of Keras 3. Defaults
        to "tf_keras".

    Returns:
      A `LearningRateSchedule` of that Keras.

    Raises:
      TypeError: A count is no whole number.
      ValueError: A number is out of its range, or there is no such Keras.
    """
    return _module(keras).GaripovDecay(learning_rate, epochs, steps)


def _module(keras: str) -> Any:
    check_choice("keras", keras, tuple(_MODULES))
    return importlib.import_module(f"tf_synflow.optimizers.{_MODULES[keras]}")


# Keras has to know the class of an optimizer to load a model that was saved with it. So
# the classes are defined now for each Keras that is imported already.
for _name in _MODULES:
    if _name in sys.modules:
        _module(_name)
