"""Data sets by name, as arrays ready to train on."""

from collections.abc import Callable

import numpy as np

from tf_synflow.data.dataset import Dataset
from tf_synflow.data.digits import digits
from tf_synflow.masks import check_choice

DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits}


def load(name: str) -> Dataset:
    """Loads a data set.

    Args:
      name: "digits".

    Returns:
      The `Dataset`.

    Raises:
      ValueError: There is no data set of that name.
    """
    check_choice("dataset", name, DATASETS)
    return DATASETS[name]()


def sample(data: Dataset, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random training images with their labels, for the criteria that need data.

    Args:
      data: The data set.
      count: How many, from 1 to the number of training images.
      seed: Seeds the choice.

    Raises:
      ValueError: There are not so many.
    """
    images, labels = data.train
    if not 1 <= count <= len(images):
        raise ValueError(
            f"cannot take {count} of the {len(images)} training images to score by"
        )
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return images[chosen], labels[chosen]


__all__ = ["DATASETS", "Dataset", "load", "sample"]
