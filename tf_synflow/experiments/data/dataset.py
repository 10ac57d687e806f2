"""Data sets in memory, and their batches for training and testing.

A batch of training images depends only on the seed and the number of its step. This is
true for the choice of images, their crops and their mirroring. So a run that continues
at some epoch sees the same images as an undisturbed run. Any number of replicas that
share a batch see the same images too.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.checks import check_count

TEST_BATCH = 256


class Share(NamedTuple):
    """The part of every global batch that a process feeds to its replicas.

    Attributes:
      first: Number of the process's first replica among all replicas. Defaults to 0.
      replicas: How many replicas the process has. Defaults to 1.
      of: How many replicas all processes have. Defaults to 1.
    """

    first: int = 0
    replicas: int = 1
    of: int = 1


WHOLE = Share()


def check_part(purpose: str, count: int, of: int) -> None:
    """Refuses a number of training images that cannot be taken.

    Raises:
      TypeError: `count` is no whole number.
      ValueError: `count` is below 1, or above the number of images.
    """
    check_count(f"the number of images to {purpose}", count)
    if count > of:
        raise ValueError(f"cannot {purpose} {count} of the {of} training images")


class Dataset(NamedTuple):
    """Images and labels in memory, split into training and test data.

    Attributes:
      train: `(x, y)`: images `(n, height, width, channels)`, uint8 or float32, and int
        labels `(n,)`.
      test: The same for the test images.
      classes: Number of classes; labels are 0 ... classes - 1.
      scale: Number by which images are divided first; 255 for uint8. Defaults to 1.
      mean: Mean of each channel, which is subtracted next. Defaults to 0.
      std: Standard deviation of each channel, by which images are divided last.
        Defaults to 1.
      padding: Number of black pixels that are added on each side of training images
        before they are cropped back at random. Defaults to 0.
      mirrored: Whether training images are mirrored left to right at random. Defaults
        to False.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    padding: int = 0
    mirrored: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.train[0].shape[1:]

    def first(self, count: int) -> "Dataset":
        """The same data set with only the first training images.

        The images are in no particular order.

        Args:
          count: How many, from 1 to the number of training images.

        Raises:
          TypeError: `count` is no whole number.
          ValueError: `count` is below 1, or above the number of training images.
        """
        check_part("train on", count, len(self.train[0]))
        images, labels = self.train
        return self._replace(train=(images[:count], labels[:count]))

    def resized(self, size: int) -> "Dataset":
        """The same data set with images resized to squares, by averages of areas.

        Args:
          size: Height and width in pixels, at least 1.

        Raises:
          TypeError: `size` is no whole number.
          ValueError: `size` is below 1.
        """
        check_count("the size of the images", size)
        train, test = (
            (tf.image.resize(images, (size, size), "area").numpy(), labels)
            for images, labels in (self.train, self.test)
        )
        return self._replace(train=train, test=test)

    def scaled_by(
        self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
    ) -> "Dataset":
        """The same data set with another mean and deviation of the channels.

        Args:
          mean: One number for all channels, or one for each channel; None: no change.
          std: Likewise, above 0.

        Raises:
          ValueError: The count of numbers does not fit the channels, or a number is out
            of its range.
        """
        channels = self.input_shape[-1]
        for what, given in (("mean", mean), ("std", std)):
            if given is not None and len(given) not in (1, channels):
                raise ValueError(
                    f"{what}={list(given)}: expected one number, or one for each of "
                    f"the {channels} channels"
                )
        if not all(np.isfinite([*(mean or ()), *(std or ())])) or min(std or [1]) <= 0:
            raise ValueError(
                "mean must be finite and std finite and above 0, got "
                f"mean={list(mean or self.mean)} and std={list(std or self.std)}"
            )
        return self._replace(mean=mean or self.mean, std=std or self.std)

    def steps(self, batch_size: int) -> int:
        """Number of steps in an epoch; the last step has the images that are left."""
        return -(-len(self.train[0]) // batch_size)

    def normalised(self, images: Any) -> Any:
        """Images as the network gets them, float32."""
        images = tf.cast(images, tf.float32) / self.scale
        return (images - tf.constant(self.mean)) / tf.constant(self.std)

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """Batches for training, epoch after epoch without end.

        Args:
          batch_size: Number of images in a step, over all replicas.
          seed: Seeds the order, the crops and the mirroring.
          first_epoch: The epoch to begin with, counted from 0. Defaults to 0.
          share: The part of each batch that is wanted. Defaults to the whole batch.

        Returns:
          `(images, labels)`: float32 `(batch, height, width, channels)` and int. Each
          step gives one element for each replica of the share.

        Raises:
          ValueError: The last batch of an epoch has images, but too few for one on each
            replica.
        """
        last = len(self.train[0]) % batch_size
        if 0 < last < share.of:
            raise ValueError(
                f"the last batch of an epoch would have {last} images, too few for "
                f"{share.of} replicas; choose another batch size than {batch_size}"
            )
        # Made once, on the host: otherwise the arrays would become part of the graph.
        with tf.device("CPU:0"):
            images, labels = (tf.constant(array) for array in self.train)
        steps = self.steps(batch_size)

        def batch(number: Any) -> tuple[Any, Any]:
            step, part = number // share.replicas, number % share.replicas
            epoch, place = step // steps, step % steps
            start = place * batch_size
            end = tf.minimum(start + batch_size, len(images))
            chosen = tf.random.experimental.index_shuffle(
                tf.range(start, end), [seed, epoch], len(images) - 1
            )
            draws = tf.random.stateless_uniform((3, end - start), [seed, step])
            # Each replica gets the same number of images: otherwise, the mean of the
            # replicas' means would not be the mean of the batch. So up to of - 1 of the
            # last images of an epoch are left out.
            size = (end - start) // share.of
            begin = (share.first + part) * size
            chosen = chosen[begin : begin + size]
            x = tf.gather(images, chosen)
            x = self._augmented(x, draws[:, begin : begin + size])
            return self.normalised(x), tf.gather(labels, chosen)

        first = first_epoch * steps * share.replicas
        counter = tf.data.Dataset.counter(first).map(lambda n: tf.cast(n, tf.int64))
        return counter.map(batch, tf.data.AUTOTUNE, deterministic=True).prefetch(4)

    def _augmented(self, x: Any, draws: Any) -> Any:
        """Crops and mirrors each image by its draws, `(3, batch)` in [0, 1)."""
        height, width, _ = self.input_shape
        if self.padding:
            pad = [[0, 0], [self.padding] * 2, [self.padding] * 2, [0, 0]]
            x = tf.pad(x, pad)
            corners = tf.cast(draws[:2] * (2 * self.padding + 1), tf.int32)
            rows = corners[0][:, None] + tf.range(height)
            columns = corners[1][:, None] + tf.range(width)
            x = tf.gather(x, rows, batch_dims=1)
            x = tf.gather(x, columns, axis=2, batch_dims=1)
        if self.mirrored:
            flips = (draws[2] < 0.5)[:, None, None, None]
            x = tf.where(flips, tf.reverse(x, [2]), x)
        return x

    def testing(self) -> tf.data.Dataset:
        """All test images in order, in batches of 256, with their labels."""
        batches = tf.data.Dataset.from_tensor_slices(self.test).batch(TEST_BATCH)
        return batches.map(lambda x, y: (self.normalised(x), y), tf.data.AUTOTUNE)

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Random training images with their labels, for the criteria that need data.

        Args:
          count: How many, from 1 to the number of training images.
          seed: Seeds the choice.

        Raises:
          TypeError: `count` is no whole number.
          ValueError: `count` is below 1, or above the number of training images.
        """
        images, labels = self.train
        check_part("score by", count, len(images))
        chosen = np.random.default_rng(seed).permutation(len(images))[:count]
        return self.normalised(images[chosen]).numpy(), labels[chosen]
