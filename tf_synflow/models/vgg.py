"""VGG networks in the forms that the pruning literature trains.

References:
  Simonyan, Zisserman. Very deep convolutional networks for large-scale image
  recognition. ICLR 2015. arXiv 1409.1556.
  Frankle, Carbin. OpenLTH (the form for 32x32 images: one Dense layer).
"""

from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.models.parts import Parts, check_depth, variant_for

# Convolutions in each of the five blocks; their widths are 64, 128, 256, 512, 512.
_BLOCKS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}

_WIDTHS = (64, 128, 256, 512, 512)

# Width of the two hidden Dense layers.
_HIDDEN = {"tiny": 1024, "imagenet": 4096}


def vgg(
    depth: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    batch_norm: bool | str = True,
    variant: str | None = None,
    name: str | None = None,
    keras: str = "tf_keras",
) -> Any:
    """Builds a VGG network that returns logits.

    The variant follows from the image size. Up to 32 pixels ("cifar"), the network has
    four max pools, a 2x2 average pool and one Dense layer. Up to 64 pixels ("tiny"), it
    has five max pools and two hidden Dense layers of 1,024 units with dropout. For
    larger images ("imagenet"), the hidden layers have 4,096 units.

    Args:
      depth: 11, 13, 16 or 19.
      input_shape: `(height, width, channels)`. Defaults to (32, 32, 3).
      classes: Number of logits. Defaults to 10.
      batch_norm: Whether to put BatchNormalization after each convolution. "last" puts
        it after the ReLU of each convolution. (So does the network of arXiv 2009.11839,
        but it differs in other ways too: see `vgg_framework`.) Defaults to True.
      variant: "cifar", "tiny" or "imagenet", for any image size. Defaults to None: the
        variant for the image size.
      name: Name of the model. Defaults to a name such as "vgg16_bn".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: Unknown depth, variant or Keras, or `batch_norm` is something else.
    """
    check_choice("batch_norm", batch_norm, (True, False, "last"))
    check_depth("VGG", depth, _BLOCKS)
    parts = Parts(keras)
    layers = parts.layers
    variant = variant_for(input_shape, variant)
    small = variant == "cifar"
    fan = "fan_in" if small else "fan_out"
    inputs = x = parts.keras.Input(input_shape)
    for block, (count, width) in enumerate(
        zip(_BLOCKS[depth], _WIDTHS, strict=True), 1
    ):
        for number in range(1, count + 1):
            label = f"block{block}_conv{number}"
            kernel = parts.he_normal(fan)
            x = layers.Conv2D(
                width, 3, padding="same", kernel_initializer=kernel, name=label
            )(x)
            if batch_norm and batch_norm != "last":
                x = parts.batch_norm(f"block{block}_bn{number}")(x)
            x = layers.ReLU(name=f"block{block}_relu{number}")(x)
            if batch_norm == "last":
                x = parts.batch_norm(f"block{block}_bn{number}")(x)
        if block == 5 and small:
            # For 32x32 images, "same" changes nothing. For 28x28 images, it is needed.
            x = layers.AveragePooling2D(2, padding="same", name="avg_pool")(x)
        else:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    if not small:
        for number in (1, 2):
            x = layers.Dense(
                _HIDDEN[variant],
                activation="relu",
                kernel_initializer=parts.normal(),
                name=f"fc{number}",
            )(x)
            x = parts.dropout(0.5, f"dropout{number}")(x)
    dense = parts.he_normal(fan) if small else parts.normal()
    outputs = layers.Dense(
        classes, kernel_initializer=dense, name="classifier", dtype=parts.logits_dtype()
    )(x)
    ending = {True: "_bn", "last": "_bn_last", False: ""}
    name = name or f"vgg{depth}{ending[batch_norm]}"
    return parts.keras.Model(inputs, outputs, name=name)
