"""Tiny ImageNet as a data set of tensorflow_datasets, which does not include it.

References:
  Stanford CS231n. Tiny ImageNet visual recognition challenge, 2015: 200 classes of
  ImageNet, 500 images of 64x64 each for training and 50 for validation.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

CLASSES = 200

_FOLDER = "tiny-imagenet-200"


def archive_at(path: str | os.PathLike[str] | None) -> Path | None:
    """The official archive at a path: the zip, or a folder that it was unpacked to.

    Args:
      path: A file; or a folder, which may hold the folder tiny-imagenet-200.

    Returns:
      The zip file, or the folder with wnids.txt in it. None if `path` is None, or any
      other folder, which may not exist yet: then it is a folder of tfds.

    Raises:
      FileNotFoundError: `path` ends in .zip, and there is no such file.
      ValueError: `path` is a file, but not the archive.
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
        raise _no_archive(path, "it is not a zip file")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _no_archive(path, f"it is damaged: {error}") from error
    if f"{_FOLDER}/wnids.txt" not in names:
        raise _no_archive(path, f"there is no {_FOLDER}/wnids.txt in it")
    return path


class _Archive:
    """The files below tiny-imagenet-200, in a zip or unpacked."""

    def __init__(self, path: Path):
        self.path = path
        self.zip = None if path.is_dir() else zipfile.ZipFile(path)

    def names(self) -> list[str]:
        """All files, sorted."""
        if self.zip is None:
            files = (file for file in self.path.rglob("*") if file.is_file())
            return sorted(file.relative_to(self.path).as_posix() for file in files)
        inside = (n.removeprefix(f"{_FOLDER}/") for n in self.zip.namelist())
        return sorted(name for name in inside if name and not name.endswith("/"))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        if self.zip is None:
            return (self.path / name).read_bytes()
        return self.zip.read(f"{_FOLDER}/{name}")

    def digest(self) -> str:
        """A digest of all files: of checksums in a zip, else of sizes and times."""
        if self.zip is None:
            stats = [(name, (self.path / name).stat()) for name in self.names()]
            what: list[tuple] = [
                (name, stat.st_size, stat.st_mtime_ns) for name, stat in stats
            ]
        else:
            what = sorted((i.filename, i.CRC) for i in self.zip.infolist())
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Tiny ImageNet: splits "train" and "validation", features "image" and "label".

    The names in wnids.txt are sorted alphabetically; a label is a name's place in that
    order. The official test images have no labels, and are left out.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, archive: Path | None = None, **kwargs: Any):
        """Makes the builder.

        Args:
          archive: The archive that `archive_at` found. Defaults to None: the archive is
            downloaded.
          **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`. The data set is
            prepared in `data_dir`.
        """
        self.archive = archive
        if archive is not None:
            # A user's archive may be only a part of the data set. It must not be taken
            # for the whole.
            name = f"archive_{_Archive(archive).digest()}"
            kwargs["config"] = tfds.core.BuilderConfig(name=name)
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
        # The archive is read where it is: tfds would unpack two archives of one name to
        # one place.
        archive = _Archive(self.archive or Path(dl_manager.download(URL)))
        labels = _labels(archive)
        return {
            "train": self._generate_examples(_training_images, archive, labels),
            "validation": self._generate_examples(_validation_images, archive, labels),
        }

    def _generate_examples(
        self, images: Callable, archive: _Archive, labels: dict[str, int]
    ) -> Iterator:
        """Gives the name of each file, with the image and label that tfds keeps."""
        for path, name in images(archive, labels):
            content = archive.read(path)
            _check_image(archive, path, content)
            image = io.BytesIO(content)
            yield path.rpartition("/")[2], {"image": image, "label": labels[name]}


def _check_image(archive: _Archive, path: str, content: bytes) -> None:
    """Refuses a file that is not an image, or has another size, and names it."""
    try:
        shape = tf.io.decode_jpeg(content, channels=3).shape
    except tf.errors.InvalidArgumentError as error:
        raise _no_archive(archive.path, f"{path} is no JPEG image") from error
    if shape != (64, 64, 3):
        size = "x".join(map(str, shape[:2]))
        raise _no_archive(archive.path, f"{path} has {size} pixels, not 64x64")


def _no_archive(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{str(path)!r} is no archive of Tiny ImageNet: {reason}. Expected {URL}, or "
        "the folder that it unpacks to"
    )


def _labels(archive: _Archive) -> dict[str, int]:
    """Class name to label."""
    names = sorted(archive.read("wnids.txt").decode().split())
    if len(names) != CLASSES:
        raise _no_archive(
            archive.path, f"wnids.txt lists {len(names)} classes, not {CLASSES}"
        )
    return {name: label for label, name in enumerate(names)}


def _training_images(archive: _Archive, labels: dict[str, int]) -> Iterator:
    """Path and class name of each image."""
    files: dict[str, list[str]] = {name: [] for name in labels}
    for path in archive.names():
        folder, name, *rest = [*path.split("/"), "", ""][:3]
        if folder == "train" and name in files and path.endswith(".JPEG"):
            files[name].append(path)
    for name, paths in files.items():
        if not paths:
            reason = f"there are no images in train/{name}/images"
            raise _no_archive(archive.path, reason)
        yield from ((path, name) for path in paths)


def _validation_images(archive: _Archive, labels: dict[str, int]) -> Iterator:
    """Path and class name of each image."""
    names = set(archive.names())
    table = "val/val_annotations.txt"
    if table not in names:
        raise _no_archive(archive.path, f"there is no {table}")
    for line in filter(str.strip, archive.read(table).decode().splitlines()):
        file, name = [*line.split("\t"), ""][:2]
        path = f"val/images/{file}"
        if name not in labels or path not in names:
            raise _no_archive(archive.path, f"{table} names {file} of {name!r}")
        yield path, name
