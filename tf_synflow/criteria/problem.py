"""`Problem`, the argument of every criterion."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tf_synflow.network import Network


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A network whose weights are to be scored.

    Attributes:
      network: The network.
      weights: Name to value, float array, of the weights to score.
      exclude: Names of the layers that are left alone.
      data: The data that the user gave; None for criteria that need no data.
      seed: The seed of random scores.
      dtype: The type that scores are computed in, "float64" or "float32".
      loss: The user's loss, or a loss for each output. None: the loss that the model is
        compiled with.
      training: Whether BatchNormalization normalises by the batch.
      temperature: The number that divides the logits; None: the criterion's own.
      attention: How SynFlow treats attention, "share" or "product"; see
        `PruningPolicy`.
      progress: Wraps the batches of data, as tqdm does.
      whole_hessian: Whether Hessian-gradient products are taken over all trainable
        variables (also biases, depthwise kernels and those of BatchNormalization), or
        over `weights` alone. Only `weights` are scored either way.
    """

    network: Network
    weights: dict[str, np.ndarray]
    exclude: tuple[str, ...] = ()
    data: Any = None
    seed: int = 0
    dtype: str = "float64"
    loss: Any = None
    training: bool = False
    temperature: float | None = None
    attention: str = "share"
    progress: Callable[[Iterable], Iterable] = iter
    whole_hessian: bool = False
