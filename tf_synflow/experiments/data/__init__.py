"""Data sets by name, ready to train on."""

import os

from tf_synflow.checks import check_choice
from tf_synflow.experiments.data.dataset import Dataset, Share
from tf_synflow.experiments.data.digits import digits, digits_8x8
from tf_synflow.experiments.data.imagenet import ImageNet, imagenet

PUBLIC = ("cifar10", "cifar100", "mnist", "fashion_mnist", "tiny_imagenet")
# Those that fit in memory.
IN_MEMORY = ("digits", "digits_8x8", *PUBLIC)
DATASETS = (*IN_MEMORY, "imagenet2012")


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset | ImageNet:
    """Loads a data set.

    Args:
      name: One of `DATASETS`.
      data_dir: Folder of tensorflow_datasets, or None for its own. For "tiny_imagenet"
        also the official archive, zip or folder.
      download: Whether what is not there is fetched. Defaults to True.

    Returns:
      The data set.

    Raises:
      ValueError: There is no data set of that name, or the archive is not one.
      FileNotFoundError: It is not there, and is not to be fetched.
      OSError: It cannot be fetched.
    """
    check_choice("dataset", name, DATASETS)
    if name == "digits":
        return digits()
    if name == "digits_8x8":
        return digits_8x8()
    if name == "imagenet2012":
        return imagenet(data_dir)
    from tf_synflow.experiments.data.public import public

    return public(name, data_dir, download)


def load_arrays(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Loads a data set that fits in memory; see `load`.

    Raises:
      ValueError: There is no such data set, or it does not fit.
    """
    check_choice("dataset", name, IN_MEMORY)
    images = load(name, data_dir, download)
    assert isinstance(images, Dataset)
    return images


__all__ = [
    "DATASETS",
    "IN_MEMORY",
    "Dataset",
    "ImageNet",
    "Share",
    "load",
    "load_arrays",
]
