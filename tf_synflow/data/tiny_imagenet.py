"""Tiny ImageNet as a data set of tensorflow_datasets, which has none of its own.

References:
  Stanford CS231n. Tiny ImageNet visual recognition challenge, 2015: 200 classes of
  ImageNet, 500 images of 64x64 each for training and 50 for validation.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
CLASSES = 200
_FOLDER = "tiny-imagenet-200"


def archive_at(path: str | os.PathLike[str] | None) -> Path | None:
    """The official archive at a path: the zip, or a folder that it was unpacked to.

    Args:
      path: A file; or a folder, which may hold the folder tiny-imagenet-200.

    Returns:
      The zip, or the folder with wnids.txt in it. None if `path` is None or any other
      folder, there or not, which is then one of tfds.

    Raises:
      FileNotFoundError: `path` ends in .zip, and there is nothing.
      ValueError: It is a file that is not the archive.
    """
    if path is None:
        return None
    path = Path(path)
    if path.is_dir():
        for folder in (path, path / _FOLDER):
            if (folder / "wnids.txt").is_file():
                return folder
        return None
    if not path.exists():
        if path.suffix != ".zip":
            return None
        raise FileNotFoundError(f"there is nothing at {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise _no_archive(path, "it is no zip file")
    with zipfile.ZipFile(path) as archive:
        if f"{_FOLDER}/wnids.txt" not in archive.namelist():
            raise _no_archive(path, f"there is no {_FOLDER}/wnids.txt in it")
    return path


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Tiny ImageNet: splits "train" and "validation", features "image" and "label".

    Labels are positions in wnids.txt, in alphabetical order. The official test images
    have no labels, and are left out.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, archive: Path | None = None, **kwargs: Any):
        """Makes the builder.

        Args:
          archive: What `archive_at` found. Defaults to None: it is downloaded.
          **kwargs: Of `tfds.core.GeneratorBasedBuilder`; `data_dir` is where it is
            prepared.
        """
        self.archive = archive
        if archive is not None:
            # An archive of one's own may be a part; it must not pass for the whole.
            stat = archive.stat()
            name = f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}"
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            kwargs["config"] = tfds.core.BuilderConfig(name=f"archive_{digest}")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(64, 64, 3), encoding_format="jpeg"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        if self.archive is None:
            root = Path(dl_manager.download_and_extract(URL)) / _FOLDER
        elif self.archive.is_dir():
            root = self.archive
        else:
            root = Path(dl_manager.extract(self.archive)) / _FOLDER
        labels = _labels(root)
        return {
            "train": _training_images(root, labels),
            "validation": _validation_images(root, labels),
        }

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("the splits bring their own generators")


def _no_archive(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{str(path)!r} is no archive of Tiny ImageNet: {reason}. Expected {URL}, or "
        "the folder that it unpacks to"
    )


def _labels(root: Path) -> dict[str, int]:
    """Class name to label."""
    names = sorted((root / "wnids.txt").read_text("utf-8").split())
    if len(names) != CLASSES:
        raise _no_archive(root, f"wnids.txt lists {len(names)} classes, not {CLASSES}")
    return {name: label for label, name in enumerate(names)}


def _training_images(root: Path, labels: dict[str, int]) -> Iterator:
    for name, label in labels.items():
        files = sorted((root / "train" / name / "images").glob("*.JPEG"))
        if not files:
            raise _no_archive(root, f"there are no images in train/{name}/images")
        for file in files:
            yield file.name, {"image": file, "label": label}


def _validation_images(root: Path, labels: dict[str, int]) -> Iterator:
    table = root / "val" / "val_annotations.txt"
    if not table.is_file():
        raise _no_archive(root, "there is no val/val_annotations.txt")
    for line in table.read_text("utf-8").splitlines():
        file, name = line.split("\t")[:2]
        path = root / "val" / "images" / file
        if name not in labels or not path.is_file():
            raise _no_archive(root, f"val_annotations.txt names {file} of {name}")
        yield file, {"image": path, "label": labels[name]}
