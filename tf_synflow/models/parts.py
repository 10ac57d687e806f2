"""Parts that the networks share, for Keras 2 and 3, and the choice of variants."""

from collections.abc import Collection
from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.frameworks import keras_named

VARIANTS = ("cifar", "tiny", "imagenet")


def variant_for(input_shape: tuple[int, int, int], variant: str | None) -> str:
    """The variant of a network: the given one, or the one for the image size."""
    if variant is not None:
        check_choice("variant", variant, VARIANTS)
        return variant
    size = max(input_shape[:2])
    return "cifar" if size <= 32 else "tiny" if size <= 64 else "imagenet"


def check_depth(family: str, depth: int, depths: Collection[int]) -> None:
    """Refuses a depth that the family does not have."""
    if depth not in depths:
        raise ValueError(f"there is no {family}-{depth}; there are {sorted(depths)}")


def check_five_halvings(
    name: str, variant: str | None, input_shape: tuple[int, int, int]
) -> None:
    """Checks the arguments of a VGG that has one variant and halves images five times.

    Raises:
      ValueError: Unknown variant, or the images are too small.
    """
    if variant is not None:
        check_choice(f"variant of {name}", variant, ("cifar",))
    if min(input_shape[:2]) < 32:
        raise ValueError(
            f"{name} halves the image five times, so it takes images of at least 32x32 "
            f"pixels, got input_shape={tuple(input_shape)}"
        )


class Parts:
    """Layers and initialisers of Keras 2 or Keras 3, as the papers' networks use them.

    Attributes:
      keras: The package of Keras 2 or Keras 3.
      layers: The layers of that package.
    """

    def __init__(self, keras: str):
        """Takes the name of a Keras: "tf_keras" or "keras"."""
        self.keras = keras_named(keras)
        self.layers = self.keras.layers
        self._is_keras_2 = keras == "tf_keras"

    def he_normal(self, fan: str) -> Any:
        """He's normal initialiser without Keras's truncation.

        `fan` is Keras's name for the mode, such as "fan_in". Each layer needs its own
        initialiser, because an unseeded initialiser gives the same values each time.
        """
        make = self.keras.initializers.VarianceScaling
        return make(2.0, fan, "untruncated_normal")

    def normal(self) -> Any:
        """N(0, 0.01), for Dense layers."""
        return self.keras.initializers.RandomNormal(stddev=0.01)

    def pytorch_kernel(self) -> Any:
        """PyTorch's default for kernels: uniform within 1 / sqrt(fan-in)."""
        make = self.keras.initializers.VarianceScaling
        return make(1 / 3, "fan_in", "uniform")

    def pytorch_bias(self, fan_in: int) -> Any:
        """PyTorch's default for biases: uniform within 1 / sqrt(fan-in)."""
        bound = fan_in**-0.5
        return self.keras.initializers.RandomUniform(-bound, bound)

    def pytorch_dense(self, x: Any, units: int, name: str, **options: Any) -> Any:
        """A Dense layer that starts as PyTorch draws it by default."""
        return self.layers.Dense(
            units,
            kernel_initializer=self.pytorch_kernel(),
            bias_initializer=self.pytorch_bias(x.shape[-1]),
            name=name,
            **options,
        )(x)

    def logits_dtype(self) -> str:
        """The type of the logits: that of the weights, so float32 in mixed precision.

        The loss of the logits needs this precision.
        """
        if self._is_keras_2:
            return self.keras.mixed_precision.global_policy().variable_dtype
        return self.keras.config.dtype_policy().variable_dtype

    def batch_norm(self, name: str, momentum: float = 0.9) -> Any:
        """BatchNorm as in PyTorch, with epsilon 1e-5 and averages 0.9 old + 0.1 new.

        `momentum` is the share of the old statistics. PyTorch calls this share
        1 - momentum.
        """
        make = self.layers.BatchNormalization
        return make(momentum=momentum, epsilon=1e-5, name=name)

    def dropout(self, rate: float, name: str) -> Any:
        """Dropout whose random state is a variable.

        So a run that continues draws the same numbers as an uninterrupted run.
        """
        stateful = {"rng_type": "stateful"} if self._is_keras_2 else {}
        return self.layers.Dropout(rate, name=name, **stateful)

    def convolution(
        self,
        x: Any,
        width: int,
        window: int,
        stride: int,
        kernel: Any,
        name: str,
        bias: Any = None,
    ) -> Any:
        """A convolution that pads `window // 2` on every side.

        If the stride is 2, Keras's "same" pads one side only; PyTorch pads both sides.

        Args:
          x: The input.
          width: Number of output channels.
          window: Height and width of the kernel.
          stride: Stride in both directions.
          kernel: Initialiser of the kernel; or "fan_in" or "fan_out", for `he_normal`.
          name: Name of the layer.
          bias: Initialiser of the bias. Defaults to None: there is no bias.
        """
        if isinstance(kernel, str):
            kernel = self.he_normal(kernel)
        padding = "same"
        if stride > 1 and window > 1:
            x = self.layers.ZeroPadding2D(window // 2, name=f"{name}_pad")(x)
            padding = "valid"
        return self.layers.Conv2D(
            width,
            window,
            stride,
            padding,
            use_bias=bias is not None,
            kernel_initializer=kernel,
            bias_initializer="zeros" if bias is None else bias,
            name=name,
        )(x)
