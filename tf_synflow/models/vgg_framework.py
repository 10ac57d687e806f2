"""VGG-13 as the gradient flow framework trains it.

It differs from the VGG-13 in `vgg.py` in four ways. Its convolutions have no bias.
BatchNormalization comes after ReLU. The fifth pool is a max pool like the others. And
kernels are drawn as PyTorch does by default: their values are about 2.4 times smaller.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839.
"""

from typing import Any

from tf_synflow.models.parts import Parts, check_five_halvings

_WIDTHS = (64, 128, 256, 512, 512)  # of the blocks; each has two convolutions


def vgg13_framework(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    variant: str | None = None,
    name: str = "vgg13_framework",
    keras: str = "tf_keras",
) -> Any:
    """Builds the VGG-13 of the gradient flow framework, which returns logits.

    Args:
      input_shape: `(height, width, channels)`, at least 32 x 32. Defaults to
        (32, 32, 3).
      classes: Number of logits. Defaults to 10.
      width: Factor for the channels of every layer. The results are rounded down.
        Defaults to 1.
      variant: There is only one variant, "cifar". Defaults to None, which means the
        same.
      name: Name of the model. Defaults to "vgg13_framework".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: Unknown variant or Keras, or the images are too small.
    """
    check_five_halvings("vgg13_framework", variant, input_shape)
    parts = Parts(keras)
    layers = parts.layers
    inputs = x = parts.keras.Input(input_shape)
    for block, channels in enumerate(_WIDTHS, 1):
        for number in (1, 2):
            x = layers.Conv2D(
                max(1, int(channels * width)),
                3,
                padding="same",
                use_bias=False,
                kernel_initializer=parts.pytorch_kernel(),
                name=f"block{block}_conv{number}",
            )(x)
            x = layers.ReLU(name=f"block{block}_relu{number}")(x)
            x = parts.batch_norm(f"block{block}_bn{number}")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    dtype = parts.logits_dtype()
    outputs = parts.pytorch_dense(x, classes, "classifier", dtype=dtype)
    return parts.keras.Model(inputs, outputs, name=name)
