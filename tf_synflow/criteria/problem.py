"""What a criterion is given."""

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
      data: What the user gave as data; None for criteria that need none.
      seed: Seeds what is random.
      dtype: "float64" or "float32", what scores are computed in.
      loss: The user's loss, or one for each output; None: what the model is compiled
        with.
      training: Whether BatchNormalization normalises by the batch.
      temperature: Divides the logits; None: the criterion's own.
      attention: "share" or "product": what SynFlow makes of attention.
      progress: Wraps the batches of data, as tqdm does.
      whole_hessian: Whether Hessian-gradient products run over all trainable variables
        (biases, BatchNormalization's, depthwise kernels too), or over `weights` alone.
        Scores are of `weights` either way.
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
