"""What a data set is here."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Images and labels, split once and for all.

    Attributes:
      train: `(x, y)`: float32 images `(n, height, width, channels)`, int labels `(n,)`.
      test: The same for the images that are kept for testing.
      classes: Number of classes; labels are 0 ... classes - 1.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.train[0].shape[1:]
