"""What the networks share: initialisers, BatchNorm, padding, the choice of a form."""

from collections.abc import Collection
from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.keras2.imports import keras

VARIANTS = ("cifar", "tiny", "imagenet")


def variant_for(input_shape: tuple[int, int, int], variant: str | None) -> str:
    """The form of a network: as asked for, or as the image size has it."""
    if variant is not None:
        check_choice("variant", variant, VARIANTS)
        return variant
    size = max(input_shape[:2])
    return "cifar" if size <= 32 else "tiny" if size <= 64 else "imagenet"


def check_depth(family: str, depth: int, depths: Collection[int]) -> None:
    """Refuses a depth that the family does not have."""
    if depth not in depths:
        raise ValueError(f"there is no {family}-{depth}; there are {sorted(depths)}")


def he_normal(fan: str) -> Any:
    """He's normal initialiser without Keras's truncation; `fan` as Keras names it.

    Each layer needs one of its own: an unseeded initialiser used twice gives the same
    values twice.
    """
    return keras.initializers.VarianceScaling(2.0, fan, "untruncated_normal")


def logits_dtype() -> str:
    """That of the weights: float32 under mixed precision too.

    The loss of the logits needs the digits.
    """
    return keras.mixed_precision.global_policy().variable_dtype


def normal() -> Any:
    """N(0, 0.01), for Dense layers."""
    return keras.initializers.RandomNormal(stddev=0.01)


def batch_norm(name: str) -> Any:
    """BatchNorm as in PyTorch: epsilon 1e-5, running average 0.9 old + 0.1 new."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def convolution(
    x: Any, width: int, window: int, stride: int, fan: str, name: str
) -> Any:
    """A convolution without bias that pads `window // 2` on every side.

    Keras's "same" pads one side only where the stride is 2; PyTorch pads both.
    """
    padding = "same"
    if stride > 1 and window > 1:
        x = keras.layers.ZeroPadding2D(window // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return keras.layers.Conv2D(
        width,
        window,
        stride,
        padding,
        use_bias=False,
        kernel_initializer=he_normal(fan),
        name=name,
    )(x)
