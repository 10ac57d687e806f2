"""MobileNet (V1) for small images.

References:
  Howard et al. MobileNets: efficient convolutional neural networks for mobile vision
  applications. arXiv 1704.04861, table 1; with strides for 32x32 images.
"""

from typing import Any

from tf_synflow.models.parts import Parts, variant_for

# Width and stride of the separable blocks, which follow a convolution of width 32.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    variant: str | None = None,
    name: str = "mobilenet",
    keras: str = "tf_keras",
) -> Any:
    """Builds MobileNet-V1, which returns logits.

    The first convolution has stride 1 for images up to 64 pixels wide and high, and
    stride 2 for larger images.

    Args:
      input_shape: `(height, width, channels)`. Defaults to (32, 32, 3).
      classes: Number of logits. Defaults to 10.
      variant: "cifar", "tiny" or "imagenet", for any image size. Defaults to None: the
        variant for the image size.
      name: Name of the model. Defaults to "mobilenet".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: Unknown variant or Keras.
    """
    parts = Parts(keras)
    layers = parts.layers
    stride = 2 if variant_for(input_shape, variant) == "imagenet" else 1
    inputs = parts.keras.Input(input_shape)
    x = parts.convolution(inputs, 32, 3, stride, "fan_in", "stem_conv")
    x = layers.ReLU(name="stem_relu")(parts.batch_norm("stem_bn")(x))
    for number, (width, stride) in enumerate(_BLOCKS, 1):
        label, padding = f"block{number}", "same"
        if stride > 1:  # pad every side, as PyTorch does
            x = layers.ZeroPadding2D(1, name=f"{label}_pad")(x)
            padding = "valid"
        x = layers.DepthwiseConv2D(
            3,
            stride,
            padding,
            use_bias=False,
            # Each output reads 9 values. For a kernel (3, 3, C, 1), Keras calls 9 the
            # fan-out, and 9 C the fan-in.
            depthwise_initializer=parts.he_normal("fan_out"),
            name=f"{label}_depthwise",
        )(x)
        x = parts.batch_norm(f"{label}_depthwise_bn")(x)
        x = layers.ReLU(name=f"{label}_depthwise_relu")(x)
        x = parts.convolution(x, width, 1, 1, "fan_in", f"{label}_pointwise")
        x = parts.batch_norm(f"{label}_pointwise_bn")(x)
        x = layers.ReLU(name=f"{label}_pointwise_relu")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    outputs = layers.Dense(
        classes,
        kernel_initializer=parts.he_normal("fan_in"),
        name="classifier",
        dtype=parts.logits_dtype(),
    )(x)
    return parts.keras.Model(inputs, outputs, name=name)
