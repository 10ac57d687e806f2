"""Residual networks in the forms that the pruning literature trains.

References:
  He, Zhang, Ren, Sun. Deep residual learning for image recognition. CVPR 2016.
  arXiv 1512.03385.
  Zagoruyko, Komodakis. Wide residual networks. BMVC 2016. arXiv 1605.07146.
"""

from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.models.parts import Parts, check_depth, variant_for
from tf_synflow.network.copies import deep_graphs

# Blocks in each of the four stages, and whether they are bottlenecks.
_STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}

# The depths in the paper, and 8, the smallest depth, for experiments on CPUs.
CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110, 1202)

DEPTHS = (*_STAGES, *CIFAR_DEPTHS)


def resnet(
    depth: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: int = 1,
    variant: str | None = None,
    name: str | None = None,
    keras: str = "tf_keras",
) -> Any:
    """Builds a residual network that returns logits.

    Depths 20, 32, 44, 56, 110 and 1202 are the paper's networks for CIFAR: three stages
    of basic blocks with 16, 32 and 64 channels. Depth 8 has one block in each stage.
    Depths 18, 34, 50, 101 and 152 have four stages of 64 to 512 channels; from depth 50
    on, the outputs of their blocks have four times as many. For images up
    to 64 pixels, their stem is a 3x3 convolution of stride 1 ("cifar" and "tiny" are
    the same). For larger images ("imagenet"), the stem is a 7x7 convolution and a max
    pool, both of stride 2. Where the shape changes, the shortcut is a 1x1 convolution
    and BatchNorm. Convolutions have no bias.

    Args:
      depth: 18, 34, 50, 101, 152, 8, 20, 32, 44, 56, 110 or 1202.
      input_shape: `(height, width, channels)`. Defaults to (32, 32, 3).
      classes: Number of logits. Defaults to 10.
      width: Factor for the channels of every layer, the stem too. Defaults to 1.
      variant: "cifar", "tiny" or "imagenet", for any image size. The CIFAR depths have
        only the variant "cifar". Defaults to None: the variant for the image size.
      name: Name of the model. Defaults to a name such as "resnet20" or "wide_resnet18".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: Unknown depth, variant or Keras.
    """
    check_depth("ResNet", depth, DEPTHS)
    parts = Parts(keras)
    layers = parts.layers
    if depth in CIFAR_DEPTHS:
        if variant is not None:
            check_choice(f"variant of ResNet-{depth}", variant, ("cifar",))
        variant = "cifar"
        blocks: tuple[int, ...] = ((depth - 2) // 6,) * 3
        bottleneck, base = False, 16
        fan, dense = "fan_in", parts.he_normal("fan_in")
    else:
        variant = variant_for(input_shape, variant)
        (blocks, bottleneck), base = _STAGES[depth], 64
        fan, dense = "fan_out", parts.normal()
    inputs = parts.keras.Input(input_shape)
    x = _stem(parts, inputs, base * width, variant, fan)
    block = _bottleneck if bottleneck else _basic
    for stage, count in enumerate(blocks, 1):
        channels = base * width * 2 ** (stage - 1)
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(parts, x, channels, stride, fan, f"stage{stage}_block{number}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    outputs = layers.Dense(
        classes, kernel_initializer=dense, name="classifier", dtype=parts.logits_dtype()
    )(x)
    name = name or f"{'wide_' if width > 1 else ''}resnet{depth}"
    with deep_graphs(4 * depth):  # 4: convolution, BatchNorm, ReLU, Add
        return parts.keras.Model(inputs, outputs, name=name)


def _stem(parts: Parts, x: Any, width: int, variant: str, fan: str) -> Any:
    window, stride = (7, 2) if variant == "imagenet" else (3, 1)
    x = parts.convolution(x, width, window, stride, fan, "stem_conv")
    x = parts.batch_norm("stem_bn")(x)
    x = parts.layers.ReLU(name="stem_relu")(x)
    if variant == "imagenet":
        # After a ReLU, padded zeros do not change the maximum.
        x = parts.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = parts.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    return x


def _basic(parts: Parts, x: Any, width: int, stride: int, fan: str, name: str) -> Any:
    y = parts.convolution(x, width, 3, stride, fan, f"{name}_conv1")
    y = parts.batch_norm(f"{name}_bn1")(y)
    y = parts.layers.ReLU(name=f"{name}_relu1")(y)
    y = parts.convolution(y, width, 3, 1, fan, f"{name}_conv2")
    y = parts.batch_norm(f"{name}_bn2")(y)
    return _join(parts, x, y, width, stride, fan, name)


def _bottleneck(
    parts: Parts, x: Any, width: int, stride: int, fan: str, name: str
) -> Any:
    y = parts.convolution(x, width, 1, 1, fan, f"{name}_conv1")
    y = parts.batch_norm(f"{name}_bn1")(y)
    y = parts.layers.ReLU(name=f"{name}_relu1")(y)
    y = parts.convolution(y, width, 3, stride, fan, f"{name}_conv2")
    y = parts.batch_norm(f"{name}_bn2")(y)
    y = parts.layers.ReLU(name=f"{name}_relu2")(y)
    y = parts.convolution(y, 4 * width, 1, 1, fan, f"{name}_conv3")
    y = parts.batch_norm(f"{name}_bn3")(y)
    return _join(parts, x, y, 4 * width, stride, fan, name)


def _join(
    parts: Parts, x: Any, y: Any, width: int, stride: int, fan: str, name: str
) -> Any:
    """Adds the shortcut from x, a 1x1 convolution where the shape changes."""
    if stride > 1 or x.shape[-1] != width:
        x = parts.convolution(x, width, 1, stride, fan, f"{name}_shortcut")
        x = parts.batch_norm(f"{name}_shortcut_bn")(x)
    x = parts.layers.Add(name=f"{name}_add")([y, x])
    return parts.layers.ReLU(name=f"{name}_relu")(x)
