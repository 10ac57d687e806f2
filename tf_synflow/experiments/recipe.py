"""How a network is trained: epochs, learning rates, optimizer."""

import dataclasses
import math
from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.keras2.imports import keras
from tf_synflow.optimizers import GRDA, SGD, GaripovDecay

DECAYS = ("cosine", "step", "constant", "garipov")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
      epochs: Passes over the training images.
      batch_size: Number of images in a step, over all replicas.
      learning_rate: Learning rate at the first step.
      seed: Seeds the order of the images, their crops and mirroring.
      decay: How the learning rate falls: "cosine" (to 0 at the last step), "step",
        "constant" or "garipov" (see `optimizers.GaripovDecay`). Defaults to "cosine".
      drops: For "step": the numbers of epochs after which the learning rate drops.
        Defaults to none.
      drop_factor: For "step": what the learning rate is multiplied by at each drop.
        Defaults to 0.1.
      weight_decay: Weight decay, added to the gradient; see `optimizers.SGD`. Defaults
        to 0.
      grda: `(c, mu)` of the optimizer GRDA. Defaults to None: SGD with momentum.
      momentum: Momentum of SGD, within [0, 1). GRDA has no momentum. Defaults to 0.9.
      nesterov: Whether the momentum is Nesterov momentum. Defaults to True.
      temperature: T, which divides the logits in the training loss. Defaults to 1.
      images: Number of training images to train on; they are the same for every seed.
        Defaults to None: all.
      seen: Number of epochs of training before this training. The order, crops and
        mirroring of their images are not repeated. Defaults to 0.
      save_best: Whether the model of the best epoch is written too; see
        `checkpoints.BestModel`. Defaults to False.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    decay: str = "cosine"
    drops: tuple[int, ...] = ()
    drop_factor: float = 0.1
    weight_decay: float = 0.0
    grda: tuple[float, float] | None = None
    momentum: float = 0.9
    nesterov: bool = True
    temperature: float = 1.0
    images: int | None = None
    seen: int = 0
    save_best: bool = False


def optimizer(recipe: Recipe, steps: int) -> Any:
    """The optimizer of a recipe, where an epoch has `steps` steps.

    Raises:
      ValueError: A number is out of its range, or two settings contradict each other.
    """
    schedule = _schedule(recipe, steps)
    if recipe.grda is None:
        return SGD(schedule, recipe.momentum, recipe.nesterov, l2=recipe.weight_decay)
    if recipe.weight_decay:
        raise ValueError(
            f"GRDA has no weight decay: expected weight_decay=0, got "
            f"weight_decay={recipe.weight_decay:g}"
        )
    return GRDA(schedule, *recipe.grda)


class TemperedCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    """The cross-entropy of the softmax of logits / T.

    If a network is trained with T = 5, its logits become about five times larger before
    its probabilities are as sharp as with T = 1.
    """

    def __init__(self, temperature: float):
        """Takes T > 0.

        Raises:
          ValueError: T is not above 0.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {temperature!r}")
        super().__init__(from_logits=True)
        self._temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The losses of a batch."""
        return super().call(y_true, y_pred / self._temperature)


def _schedule(recipe: Recipe, steps: int) -> Any:
    check_choice("decay of the learning rate", recipe.decay, DECAYS)
    if bool(recipe.drops) != (recipe.decay == "step"):
        raise ValueError(
            "drops are for decay 'step', which needs at least one: got decay "
            f"{recipe.decay!r} and drops {list(recipe.drops)}"
        )
    if list(recipe.drops) != sorted({drop for drop in recipe.drops if drop > 0}):
        raise ValueError(
            "drops must be rising numbers of epochs, 1 or more, got "
            f"{list(recipe.drops)}"
        )
    schedules = keras.optimizers.schedules
    rate = recipe.learning_rate
    if recipe.decay == "cosine":
        return schedules.CosineDecay(rate, recipe.epochs * steps)
    if recipe.decay == "garipov":
        return GaripovDecay(rate, recipe.epochs, steps)
    # At a boundary, the learning rate is still the one from before the drop.
    boundaries = [drop * steps - 1 for drop in recipe.drops]
    factors = [recipe.drop_factor**k for k in range(len(boundaries) + 1)]
    if not boundaries:
        return float(rate)
    return schedules.PiecewiseConstantDecay(boundaries, [rate * f for f in factors])
