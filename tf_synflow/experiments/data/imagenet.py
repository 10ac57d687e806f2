"""ImageNet, which is decoded, cropped and shuffled while it is read from files."""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.experiments.data.dataset import TEST_BATCH, WHOLE, Share, check_part

SIZE = 224


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


_BUFFER = 16_384  # images shuffled together, still compressed


class ImageNet:
    """ImageNet, with the methods of a `Dataset`, but read from files.

    Training images are cropped at random (8 % to all of the area, aspect 3:4 to 4:3),
    resized to 224x224 and mirrored at random; test images are resized to 256 pixels on
    the shorter side and cropped in the middle. Order, crops and mirroring follow from
    the seed, the epoch and the place of the image in the epoch.

    Attributes:
      classes: 1,000.
      input_shape: `(224, 224, 3)`.
    """

    classes = 1000
    input_shape = (SIZE, SIZE, 3)

    def __init__(self, train: tf.data.Dataset, test: tf.data.Dataset):
        """Made by `imagenet`: datasets of `{"image": JPEG bytes, "label": int}`."""
        self._train, self._test = train, test
        self._count = int(train.cardinality())

    def first(self, count: int) -> "ImageNet":
        """The same data set with fewer training images; see `Dataset.first`."""
        check_part("train on", count, self._count)
        return ImageNet(self._train.take(count), self._test)

    def scaled_by(self, mean: Any, std: Any) -> "ImageNet":
        """The same data set: mean and deviation are always those of published networks.

        Raises:
          ValueError: `mean` or `std` is given.
        """
        if mean is not None or std is not None:
            raise ValueError(
                f"ImageNet is normalised by the mean {MEAN} and the deviation {STD} "
                "alone; leave out mean and std"
            )
        return self

    def steps(self, batch_size: int) -> int:
        """Number of steps in an epoch; images after the last whole batch are unused."""
        if batch_size > self._count:
            raise ValueError(
                f"batch_size={batch_size} is larger than the {self._count} training "
                "images; choose a smaller one"
            )
        return self._count // batch_size

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """Batches for training, epoch after epoch; see `Dataset.training`."""
        own = batch_size // share.of
        images = self.steps(batch_size) * own * share.of
        process, processes = share.first // share.replicas, share.of // share.replicas

        def crop(epoch: Any, place: Any, example: Any) -> tuple[Any, Any]:
            # Place and epoch are joined in one number, because stateless draws take a
            # seed of two numbers.
            draw = [seed, epoch * self._count + place]
            return _random_crop(example["image"], draw), example["label"]

        def epoch(number: Any) -> tf.data.Dataset:
            # This is the seed of this function's graph only. If it were 0, as the seed
            # of the run may be, TensorFlow would compare the seed below with 0, and a
            # tensor does not allow this.
            tf.compat.v1.set_random_seed(1)
            order = self._train.shuffle(
                _BUFFER, seed=seed + number, reshuffle_each_iteration=False
            )
            order = order.take(images).enumerate().shard(processes, process)
            return order.map(
                lambda place, example: crop(number, place, example),
                tf.data.AUTOTUNE,
                deterministic=True,
            ).batch(own, drop_remainder=True)

        epochs = tf.data.Dataset.counter(first_epoch)
        return epochs.flat_map(epoch).prefetch(tf.data.AUTOTUNE)

    def testing(self) -> tf.data.Dataset:
        """All test images in order, in batches of 256, with their labels."""
        images = self._test.map(
            lambda example: (_middle(example["image"]), example["label"]),
            tf.data.AUTOTUNE,
            deterministic=True,
        )
        return images.batch(TEST_BATCH).prefetch(tf.data.AUTOTUNE)

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training images with their labels; see `Dataset.sample`.

        The images are drawn from a buffer of 16,384 images, not from all images.
        """
        check_part("score by", count, self._count)
        chosen = self._train.shuffle(_BUFFER, seed=seed).take(count)
        pairs = [(_middle(e["image"]).numpy(), int(e["label"])) for e in chosen]
        images, labels = zip(*pairs, strict=True)
        return np.stack(images), np.array(labels)


def imagenet(data_dir: str | os.PathLike[str] | None) -> ImageNet:
    """Opens ImageNet as tfds has prepared it.

    Raises:
      FileNotFoundError: ImageNet is not there.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        train, test = (
            builder.as_dataset(split=split, shuffle_files=False, decoders=skip)
            for split in ("train", "validation")
        )
    except AssertionError as error:  # tfds raises this if there are no files
        raise FileNotFoundError(
            f"there is no imagenet2012 in {str(builder.data_dir)!r}. It cannot be "
            "downloaded without an account: get ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar from https://image-net.org, put them into "
            "~/tensorflow_datasets/downloads/manual, and run `tfds build "
            "imagenet2012`; or name the folder that has it with --data_dir"
        ) from error
    return ImageNet(train, test)


def _normalised(image: Any) -> Any:
    image.set_shape((SIZE, SIZE, 3))
    return (image / 255 - tf.constant(MEAN)) / tf.constant(STD)


def _random_crop(jpeg: Any, draw: Any) -> Any:
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(jpeg),
        tf.zeros((1, 0, 4)),
        draw,
        min_object_covered=0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1),
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], 0)
    image = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)
    image = tf.image.resize(image, (SIZE, SIZE), antialias=True)
    return _normalised(tf.image.stateless_random_flip_left_right(image, draw))


def _middle(jpeg: Any) -> Any:
    image = tf.io.decode_jpeg(jpeg, channels=3)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    scale = 256 / tf.minimum(height, width)
    size = [
        tf.cast(tf.math.rint(tf.cast(n, scale.dtype) * scale), tf.int32)
        for n in (height, width)
    ]
    image = tf.image.resize(image, size, antialias=True)
    top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    return _normalised(image[top : top + SIZE, left : left + SIZE])
