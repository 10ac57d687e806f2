"""Wide residual networks whose blocks begin with BatchNorm.

References:
  Zagoruyko, Komodakis. Wide residual networks. BMVC 2016. arXiv 1605.07146.
  Chao, Wang, Xing, Cheng. Directional pruning of deep neural networks. NeurIPS 2020.
  arXiv 2006.09358 (biases, strides and initial values are those of this paper).
"""

from typing import Any

from tf_synflow.checks import check_choice, check_count
from tf_synflow.models.parts import Parts
from tf_synflow.network.copies import deep_graphs

_STAGES = (16, 32, 64)  # times the width


def wide_resnet(
    depth: int = 28,
    width: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    variant: str | None = None,
    name: str | None = None,
    keras: str = "tf_keras",
) -> Any:
    """Builds a wide residual network that returns logits.

    A block is BatchNorm - ReLU - 3x3 convolution - BatchNorm - ReLU - 3x3 convolution,
    and the block's input is added at the end. The shape changes in the first block of
    each stage. There the second convolution has the stride. The block's input, as it is
    before BatchNorm and ReLU, goes through a 1x1 convolution before it is added. Every
    convolution has a bias. BatchNorm, ReLU and the mean over all positions come before
    the Dense layer. The paper's Dropout between the two convolutions has rate 0, so it
    is left out here.

    As in the paper, the last BatchNorm keeps 0.1 of its old statistics at each step,
    and all others keep 0.9. Kernels and biases are drawn uniform up to
    1 / sqrt(inputs), as PyTorch does by default.

    Args:
      depth: 6 n + 4, with n blocks in each of the three stages. Defaults to 28.
      width: Factor for the 16, 32 and 64 channels of the stages. Defaults to 10.
      input_shape: `(height, width, channels)`. Defaults to (32, 32, 3).
      classes: Number of logits. Defaults to 10.
      variant: There is only one variant, "cifar". Defaults to None, which means the
        same.
      name: Name of the model. Defaults to a name such as "wide_resnet28_10".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      TypeError: The width is no whole number.
      ValueError: Unknown variant or Keras, or there is no such depth or width.
    """
    if variant is not None:
        check_choice("variant of a wide ResNet", variant, ("cifar",))
    check_count("width", width)
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6 n + 4 with n >= 1, got {depth}")
    parts = Parts(keras)
    layers = parts.layers
    inputs = parts.keras.Input(input_shape)
    x = _convolution(parts, inputs, 16, 3, 1, "stem_conv")
    for stage, channels in enumerate(_STAGES, 1):
        for number in range(1, (depth - 4) // 6 + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = _block(
                parts, x, channels * width, stride, f"stage{stage}_block{number}"
            )
    x = parts.batch_norm("final_bn", momentum=0.1)(x)
    x = layers.ReLU(name="final_relu")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    dtype = parts.logits_dtype()
    outputs = parts.pytorch_dense(x, classes, "classifier", dtype=dtype)
    with deep_graphs(4 * depth):
        return parts.keras.Model(
            inputs, outputs, name=name or f"wide_resnet{depth}_{width}"
        )


def _block(parts: Parts, x: Any, width: int, stride: int, name: str) -> Any:
    y = parts.batch_norm(f"{name}_bn1")(x)
    y = parts.layers.ReLU(name=f"{name}_relu1")(y)
    y = _convolution(parts, y, width, 3, 1, f"{name}_conv1")
    y = parts.batch_norm(f"{name}_bn2")(y)
    y = parts.layers.ReLU(name=f"{name}_relu2")(y)
    y = _convolution(parts, y, width, 3, stride, f"{name}_conv2")
    if stride > 1 or x.shape[-1] != width:
        x = _convolution(parts, x, width, 1, stride, f"{name}_shortcut")
    return parts.layers.Add(name=f"{name}_add")([y, x])


def _convolution(
    parts: Parts, x: Any, width: int, window: int, stride: int, name: str
) -> Any:
    """A convolution with a bias; both start as PyTorch draws them by default."""
    return parts.convolution(
        x,
        width,
        window,
        stride,
        parts.pytorch_kernel(),
        name,
        bias=parts.pytorch_bias(window * window * x.shape[-1]),
    )
