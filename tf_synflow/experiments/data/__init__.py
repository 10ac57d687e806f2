"""Data sets by name, ready to train on."""

import os

from tf_synflow.checks import check_choice
from tf_synflow.experiments.data.dataset import Dataset, Share
from tf_synflow.experiments.data.digits import digits, digits_8x8
from tf_synflow.experiments.data.imagenet import ImageNet, imagenet

PUBLIC = ("cifar10", "cifar100", "mnist", "fashion_mnist", "tiny_imagenet")
# The data sets that fit in memory.
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
      data_dir: Folder of tensorflow_datasets. For "tiny_imagenet", it may also be the
        official archive, as a zip file or folder. Defaults to None: the usual folder of
        tensorflow_datasets.
      download: Whether to download the data set if it is not there. Defaults to True.

    Returns:
      The data set.

    Raises:
      ValueError: There is no data set of that name, or the archive is not one.
      FileNotFoundError: The data set is not there, and `download` is False.
      OSError: The data set cannot be downloaded.
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
      ValueError: There is no such data set, or it does not fit in memory.
    """
    if name == "imagenet2012":
        raise ValueError(
            f"dataset={name!r}: this program needs all images in memory. Expected one "
            f"of {', '.join(IN_MEMORY)}"
        )
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
