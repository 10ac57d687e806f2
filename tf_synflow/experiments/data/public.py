"""Public data sets through tensorflow_datasets, as the papers use them.

CIFAR and Tiny ImageNet are padded by 4 pixels, cropped at random and mirrored; MNIST
and Fashion-MNIST are taken as they are.
"""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.checks import first_line
from tf_synflow.experiments.data.dataset import Dataset
from tf_synflow.experiments.data.tiny_imagenet import TinyImagenet, archive_at


class Facts(NamedTuple):
    """What is known of a data set before it is loaded."""

    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test: str = "test"  # split
    augmented: bool = True


FACTS = {
    "cifar10": Facts(10, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": Facts(100, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "mnist": Facts(10, (0.1307,), (0.3081,), augmented=False),
    "fashion_mnist": Facts(10, (0.2860,), (0.3530,), augmented=False),
    "tiny_imagenet": Facts(
        200, (0.480, 0.448, 0.397), (0.276, 0.269, 0.282), test="validation"
    ),
}


def public(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool
) -> Dataset:
    """Loads one of `FACTS` into memory.

    Args:
      name: Name of the data set.
      data_dir: Folder of tfds, or None for its usual folder, `~/tensorflow_datasets`.
        For Tiny ImageNet, it may also be the official archive: the zip file or the
        unpacked folder.
      download: Whether to download the data set if it is not there.

    Raises:
      FileNotFoundError: The data set is not there, and `download` is False.
      OSError: The data set cannot be downloaded.
      ValueError: The given archive of Tiny ImageNet is no such archive; or the data set
        that was prepared before is damaged.
    """
    facts = FACTS[name]
    builder = _builder(name, data_dir)
    _prepare(builder, name, download)
    try:
        train, test = (_arrays(builder, split) for split in ("train", facts.test))
    except tf.errors.OpError as error:
        raise ValueError(
            f"the {name} in {str(builder.data_dir)!r} is damaged "
            f"({first_line(error)}). Delete that folder to have it prepared again"
        ) from error
    return Dataset(
        train,
        test,
        facts.classes,
        scale=255,
        mean=facts.mean,
        std=facts.std,
        padding=4 if facts.augmented else 0,
        mirrored=facts.augmented,
    )


def _builder(name: str, data_dir: Any) -> Any:
    import tensorflow_datasets as tfds  # slow, and the digits do not need it

    if name != "tiny_imagenet":
        return tfds.builder(name, data_dir=data_dir)
    archive = archive_at(data_dir)
    return TinyImagenet(archive=archive, data_dir=None if archive else data_dir)


def _prepare(builder: Any, name: str, download: bool) -> None:
    """Makes sure that the data is there."""
    here = Path(builder.data_dir)
    at_hand = getattr(builder, "archive", None) is not None
    if (here / "dataset_info.json").exists():
        return
    if not (download or at_hand):
        raise FileNotFoundError(
            f"there is no {name} in {str(here)!r}. Name the folder that has it with "
            "--data_dir, or let it be downloaded (without --nodownload)"
        )
    try:
        builder.download_and_prepare()
    except ValueError:
        raise
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"the archive {builder.archive} is damaged: {error}"
        ) from error
    # Each protocol, archive and checksum fails with an error of its own.
    except Exception as error:
        raise OSError(
            f"{name} is not in {str(here)!r}, and could not be downloaded "
            f"({type(error).__name__}: {first_line(error)}). Try again with a "
            "network, or copy a prepared data set to this machine and name its folder "
            "with --data_dir"
        ) from error


def _arrays(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a split, in the order of its files."""
    import tensorflow_datasets as tfds

    batches = builder.as_dataset(split=split, shuffle_files=False).batch(1000)
    parts = [(p["image"], p["label"]) for p in tfds.as_numpy(batches)]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return images, labels
