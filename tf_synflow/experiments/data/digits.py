"""Handwritten digits that come with scikit-learn: real data without a download.

References:
  Alpaydin, Kaynak. Optical recognition of handwritten digits. UCI Machine Learning
  Repository, 1998. (scikit-learn carries its test set: 1,797 images of 8x8 pixels.)
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.experiments.data.dataset import Dataset

TEST_IMAGES = 360


def digits() -> Dataset:
    """The digits, resized to 32x32x3 and scaled to [0, 1]; 360 kept for testing.

    The split is stratified and always the same.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.
    """
    images, split = _images()
    images = np.repeat(tf.image.resize(images, (32, 32)).numpy(), 3, axis=-1)
    return split(images)


def digits_8x8() -> Dataset:
    """The digits in their own size, 8x8x1, scaled to [0, 1]; 360 kept for testing.

    The test images are the same as in `digits`.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.
    """
    images, split = _images()
    return split(images)


def _images() -> tuple[np.ndarray, Any]:
    """The images, (1797, 8, 8, 1), and a function that makes a data set of images."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed: "
            "pip install 'tf_synflow[demo]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")

    def split(images: np.ndarray) -> Dataset:
        x_train, x_test, y_train, y_test = train_test_split(
            images, labels, test_size=TEST_IMAGES, stratify=labels, random_state=0
        )
        return Dataset((x_train, y_train), (x_test, y_test), classes=10)

    return images, split
