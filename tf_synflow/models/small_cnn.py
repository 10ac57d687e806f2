"""A small convolutional network without BatchNormalization, for small images."""

from typing import Any

from tf_synflow.checks import check_choice
from tf_synflow.models.parts import Parts


def small_cnn(
    input_shape: tuple[int, int, int] = (8, 8, 1),
    classes: int = 10,
    variant: str | None = None,
    name: str | None = None,
    keras: str = "tf_keras",
) -> Any:
    """Builds a network that a CPU trains in seconds; it returns logits.

    It has two 3x3 convolutions of 16 and 32 channels, each with ReLU and a 2x2 max
    pool, a hidden Dense layer of 64 units, and a Dense layer for the logits. For 8x8x1
    images and ten classes it has 13,706 parameters.

    Args:
      input_shape: `(height, width, channels)`, at least 4 x 4. Defaults to (8, 8, 1).
      classes: Number of logits. Defaults to 10.
      variant: There is only one variant, "cifar". Defaults to None, which means the
        same.
      name: Name of the model. Defaults to "small_cnn".
      keras: The Keras that builds the network: "tf_keras" (Keras 2) or "keras" (Keras
        3). Defaults to "tf_keras".

    Returns:
      A `keras.Model` from `(batch, *input_shape)` to `(batch, classes)`.

    Raises:
      ValueError: Unknown variant or Keras.
    """
    if variant is not None:
        check_choice("variant of small_cnn", variant, ("cifar",))
    parts = Parts(keras)
    layers = parts.layers
    inputs = x = parts.keras.Input(input_shape)
    for number, width in enumerate((16, 32), 1):
        x = layers.Conv2D(
            width,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=parts.he_normal("fan_in"),
            name=f"conv{number}",
        )(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(
        64,
        activation="relu",
        kernel_initializer=parts.he_normal("fan_in"),
        name="fc",
    )(x)
    outputs = layers.Dense(
        classes,
        kernel_initializer=parts.he_normal("fan_in"),
        name="classifier",
        dtype=parts.logits_dtype(),
    )(x)
    return parts.keras.Model(inputs, outputs, name=name or "small_cnn")
