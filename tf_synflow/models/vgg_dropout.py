"""VGG-16 without BatchNormalization and with Dropout, as gRDA's paper trains it.

References:
  Chao, Wang, Xing, Cheng. Directional pruning of deep neural networks. NeurIPS 2020.
  arXiv 2006.09358.
"""

from typing import Any

from tf_synflow.models.parts import Parts, check_five_halvings

# Number and width of the convolutions in each of the five blocks.
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

_HIDDEN = 512


def vgg16_dropout(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    variant: str | None = None,
    name: str | None = None,
    keras: str = "tf_keras",
    width: float = 1.0,
) -> Any:
    """Builds the VGG-16 of gRDA's paper, which returns logits.

    The network has thirteen 3x3 convolutions with biases, in five blocks. Each block
    ends in a max pool. Then there are two hidden Dense layers of 512 units. Dropout of
    rate 0.5 stands before each of them. There is no BatchNormalization. For 32x32x3
    images and ten classes it has 15,245,130 parameters.

    The initial weights are drawn as in the paper. The kernels of the convolutions are
    drawn from N(0, 2 / (9 outputs)) and their biases are 0. Kernels and biases of the
    Dense layers are uniform up to 1 / sqrt(inputs), as PyTorch draws them by default.

    Args:
      input_shape: `(height, width, channels)`, at least 32 x 32. Defaults to (32, 32,
        3).
      classes: Number of logits. Defaults to 10.
      variant: There is only one variant, "cifar". Defaults to None, which means the
        same.
      name: Name of the model. Defaults to "vgg16_dropout".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".
      width: Factor for the channels and units of every layer but the last. The results
        are rounded down. With a quarter, a CPU can train the network. Defaults to 1.

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: Unknown variant or Keras, or the images are too small.
    """
    check_five_halvings("vgg16_dropout", variant, input_shape)
    parts = Parts(keras)
    layers = parts.layers
    inputs = x = parts.keras.Input(input_shape)
    for block, (count, channels) in enumerate(_BLOCKS, 1):
        for number in range(1, count + 1):
            x = layers.Conv2D(
                max(1, int(channels * width)),
                3,
                padding="same",
                kernel_initializer=parts.he_normal("fan_out"),
                name=f"block{block}_conv{number}",
            )(x)
            x = layers.ReLU(name=f"block{block}_relu{number}")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = parts.dropout(0.5, f"dropout{number}")(x)
        units = max(1, int(_HIDDEN * width))
        x = parts.pytorch_dense(x, units, f"fc{number}", activation="relu")
    dtype = parts.logits_dtype()
    outputs = parts.pytorch_dense(x, classes, "classifier", dtype=dtype)
    return parts.keras.Model(inputs, outputs, name=name or "vgg16_dropout")
