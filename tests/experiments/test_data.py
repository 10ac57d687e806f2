"""Data sets: what tfds mocks of each, and Tiny ImageNet from an archive made here."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_synflow.experiments import data
from tf_synflow.experiments.data.dataset import Share
from tf_synflow.experiments.data.tiny_imagenet import archive_at

ROOT = Path(__file__).parents[2]

SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "tiny_imagenet": ((64, 64, 3), 200),
    "imagenet2012": ((224, 224, 3), 1000),
}


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


@pytest.mark.filterwarnings("ignore")  # of tfds's own mocks
@pytest.mark.parametrize("name", SHAPES)
def test_every_data_set_gives_batches_to_train_and_to_test(name, tfds, tmp_path):
    with tfds.testing.mock_data(num_examples=5):
        found = data.load(name, tmp_path)
        shape, classes = SHAPES[name]
        assert (found.input_shape, found.classes) == (shape, classes)
        x, y = next(iter(found.training(2, seed=0)))
        assert x.shape == (2, *shape) and x.dtype == tf.float32 and y.shape == (2,)
        x, y = next(iter(found.testing()))
        assert x.shape == (5, *shape) and y.shape == (5,)
        x, y = found.sample(3, seed=0)
        assert x.shape == (3, *shape) and y.shape == (3,)
        with pytest.raises(ValueError, match="cannot score by 6 of the 5 training"):
            found.sample(6, seed=0)
        # Of a part no other images are seen, in as many steps as it has.
        part = found.first(2)
        assert [data.steps(1) for data in (part, found)] == [2, 5]
        labels = [int(y[0]) for _, y in part.training(1, seed=0).take(6)]
        assert sorted(labels[:2]) == sorted(labels[2:4]) == sorted(labels[4:])
        wanted = sorted(int(y) for y in part.sample(2, seed=0)[1])
        assert sorted(labels[:2]) == wanted
        with pytest.raises(ValueError, match="cannot train on 6 of the 5 training"):
            found.first(6)
        with pytest.raises(
            TypeError, match="images to train on must be a whole number"
        ):
            found.first(2.0)


@pytest.mark.filterwarnings("ignore")
def test_what_is_streamed_follows_from_seed_and_epoch_too(tfds, tmp_path):
    with tfds.testing.mock_data(num_examples=8):
        found = data.load("imagenet2012", tmp_path)

        def batches(seed, epoch, count, share=Share()):  # noqa: B008
            part = found.training(4, seed, epoch, share).take(count)
            return [x.numpy() for x, _ in part]

        whole = batches(1, 0, 4)  # two epochs of two steps
        again = batches(1, 1, 2)
        np.testing.assert_array_equal(whole[2:], again)
        assert not np.array_equal(whole[0], whole[2])
        assert not np.array_equal(whole[0], batches(2, 0, 1)[0])
        # Two processes see different images, and together all of them.
        parts = [batches(1, 0, 2, Share(n, 1, 2)) for n in range(2)]
        seen = {image.tobytes() for part in parts for x in part for image in x}
        assert seen == {image.tobytes() for x in whole[:2] for image in x}


def test_the_middle_of_an_image_is_cut_out():
    from tf_synflow.experiments.data.imagenet import MEAN, STD, _middle

    image = np.zeros((300, 600, 3), "uint8")
    image[:, 150:450] = 255  # what is in the middle of the longer side
    found = _middle(tf.io.encode_jpeg(image, quality=100)).numpy()
    assert found.shape == (224, 224, 3)
    np.testing.assert_allclose(found * STD + MEAN, 1, atol=0.02)


def test_what_is_not_there_is_said_in_plain_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no cifar10 in .*--data_dir"):
        data.load("cifar10", tmp_path, download=False)
    with pytest.raises(FileNotFoundError, match="tfds build imagenet2012"):
        data.load("imagenet2012", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        data.load("tiny_imagenet", tmp_path / "none.zip")


def official_layout(folder):
    """200 classes, two training images and one for validation, each of one colour."""
    root = folder / "tiny-imagenet-200"
    names = [f"n{7919 * k % 10**8:08}" for k in range(1, 201)]
    (root / "val" / "images").mkdir(parents=True)
    annotations = []
    for k, name in enumerate(names):
        colour = np.array([k, 255 - k, (k * 37) % 256], "uint8")
        jpeg = tf.io.encode_jpeg(np.broadcast_to(colour, (64, 64, 3)), quality=100)
        images = root / "train" / name / "images"
        images.mkdir(parents=True)
        for n in range(2):
            (images / f"{name}_{n}.JPEG").write_bytes(jpeg.numpy())
        (root / "val" / "images" / f"val_{k}.JPEG").write_bytes(jpeg.numpy())
        annotations.append(f"val_{k}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "wnids.txt").write_text("\n".join(names))
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    return root, names


def zipped(root):
    path = root.parent / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root.parent))
    return path


PROGRAM = """
import json, sys, numpy as np
from tf_synflow.experiments import data
for path in sys.argv[1:]:
    try:
        found = data.load("tiny_imagenet", path)
    except ValueError as error:
        print(json.dumps([str(error)]))
        continue
    print(json.dumps([[x.mean((1, 2)).tolist(), y.tolist(), list(x.shape)]
                      for x, y in (found.train, found.test)]))
"""


def test_tiny_imagenet_is_read_from_the_official_archive(tmp_path):
    root, names = official_layout(tmp_path)
    paths = [str(zipped(root)), str(root), str(tmp_path)]
    # Another archive of the same name, with an image a class: not the one before.
    other = tmp_path / "other" / "tiny.zip"
    other.parent.mkdir()
    with zipfile.ZipFile(paths[0]) as whole, zipfile.ZipFile(other, "w") as part:
        for name in whole.namelist():
            if not name.endswith("_1.JPEG") or "val" in name:
                part.writestr(name, whole.read(name))
    no_image = tmp_path / "no_image.zip"
    damaged = tmp_path / "damaged" / "tiny.zip"
    damaged.parent.mkdir()
    content = bytearray(Path(paths[0]).read_bytes())
    for place in range(len(content) // 4, len(content) // 2, 1000):
        content[place] ^= 1
    damaged.write_bytes(content)
    with zipfile.ZipFile(paths[0]) as whole, zipfile.ZipFile(no_image, "w") as part:
        for name in whole.namelist():
            wrong = name.endswith("val_7.JPEG")
            part.writestr(name, b"sun" if wrong else whole.read(name))
    paths = [str(damaged), *paths, str(other), str(no_image)]
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "prepared")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(answers) == 6 and len(set(answers[1:4])) == 1
    assert "is damaged" in json.loads(answers[0])[0]
    assert json.loads(answers[4])[0][2] == [200, 64, 64, 3]
    (said,) = json.loads(answers[5])
    assert (
        f"{no_image}' is no archive of Tiny ImageNet: val/images/val_7.JPEG is" in said
    )
    for (colours, labels, shape), count in zip(
        json.loads(answers[1]), (2, 1), strict=True
    ):
        assert shape == [200 * count, 64, 64, 3]
        assert sorted(labels) == sorted(list(range(200)) * count)
        for colour, label in zip(colours, labels, strict=True):
            k = names.index(sorted(names)[label])
            np.testing.assert_allclose(colour, [k, 255 - k, k * 37 % 256], atol=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sun", "n1/images/n1_0.JPEG is no JPEG image"),
        (b"", "n1_0.JPEG is no JPEG image"),
        (tf.io.encode_jpeg(np.zeros((64, 64, 3), "uint8")).numpy()[:400], "no JPEG"),
        (tf.io.encode_jpeg(np.zeros((64, 32, 3), "uint8")).numpy(), "64x32 pixels"),
    ],
)
def test_a_file_that_is_no_image_of_tiny_imagenet_is_named(content, message, tmp_path):
    from tf_synflow.experiments.data import tiny_imagenet

    path = "train/n1/images/n1_0.JPEG"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(content)
    archive = tiny_imagenet._Archive(tmp_path)
    images = tiny_imagenet.TinyImagenet._generate_examples(
        None, lambda *_: [(path, "n1")], archive, {"n1": 0}
    )
    with pytest.raises(ValueError, match=f"{tmp_path}' is no archive .*{message}"):
        next(images)


def test_prepared_data_that_is_damaged_is_named(tmp_path, monkeypatch):
    """A record of tfds with a flipped bit."""
    from tf_synflow.experiments.data import public

    path = str(tmp_path / "records")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"x" * 100)
    content = bytearray((tmp_path / "records").read_bytes())
    content[30] ^= 1
    (tmp_path / "records").write_bytes(content)

    class Builder:
        data_dir = tmp_path

        def as_dataset(self, **_):
            return tf.data.TFRecordDataset(path).map(lambda x: {"image": x, "label": 0})

    monkeypatch.setattr(public, "_builder", lambda *_: Builder())
    monkeypatch.setattr(public, "_prepare", lambda *_: None)
    message = f"the mnist in '{tmp_path}' is damaged .corrupted record at 12.*Delete"
    with pytest.raises(ValueError, match=message):
        data.load("mnist", tmp_path)


def test_what_is_no_archive_of_tiny_imagenet_is_refused(tmp_path):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("holiday.txt", "sun")
    with pytest.raises(ValueError, match="there is no tiny-imagenet-200/wnids.txt in"):
        archive_at(other)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match="it is not a zip file. Expected http"):
        archive_at(tmp_path / "text.zip")
    # The directory at the end of a zip is damaged, the record after it is not.
    content = bytearray(other.read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1
    other.write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged: .* Expected http"):
        archive_at(other)
    assert archive_at(tmp_path) is None and archive_at(None) is None


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda root, n: (root / "wnids.txt").write_text(n[0]), "lists 1 classes"),
        (lambda root, n: (root / "val/images/val_3.JPEG").unlink(), "names val_3.JPEG"),
        (
            lambda root, n: [p.unlink() for p in (root / "train" / n[0]).rglob("*.*")],
            "there are no images in train/",
        ),
        (lambda root, n: (root / "val/val_annotations.txt").unlink(), "no val/val_ann"),
    ],
)
def test_an_archive_with_parts_missing_is_refused(broken, message, tmp_path):
    from tf_synflow.experiments.data import tiny_imagenet

    root, names = official_layout(tmp_path)
    broken(root, names)
    with pytest.raises(ValueError, match=message):
        archive = tiny_imagenet._Archive(root)
        labels = tiny_imagenet._labels(archive)
        list(tiny_imagenet._training_images(archive, labels))
        list(tiny_imagenet._validation_images(archive, labels))


def test_data_that_does_not_fit_in_memory_is_refused_by_name():
    with pytest.raises(
        ValueError, match="'imagenet2012'.*in memory.*digits, digits_8x8"
    ):
        data.load_arrays("imagenet2012")
    assert data.load_arrays("digits_8x8").classes == 10
