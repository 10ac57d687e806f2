"""Retraining: the optimizer, the loop and the history of a run."""

import csv
import time
from pathlib import Path
from typing import Any, NamedTuple

from tf_synflow._compat import keras, tf
from tf_synflow.callbacks import PruningCallback
from tf_synflow.data import Dataset
from tf_synflow.files import write_csv
from tf_synflow.optimizers import GRDA
from tf_synflow.sparsity import SparsityCallback, sparsity


class HistoryFile(keras.callbacks.Callback):
    """Writes the logs of all epochs so far to a CSV file, whole after each epoch."""

    def __init__(self, path: Path):
        """Makes the callback; `path` is the file."""
        super().__init__()
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds a row: epoch (from 1), the logs, and seconds."""
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}}
        self.rows.append({**row, "seconds": time.perf_counter() - self._start})
        write_csv(self.path, self.rows)


class Recipe(NamedTuple):
    """How to train.

    Attributes:
      epochs: Passes over the training images.
      batch_size: Images a step.
      learning_rate: At the first step; it falls to 0 by a cosine.
      seed: Seeds the order of the images.
      grda: `(c, mu)` of the optimizer GRDA; None: SGD with Nesterov momentum 0.9.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    grda: tuple[float, float] | None = None


def optimizer(recipe: Recipe, steps: int) -> Any:
    """The optimizer of a recipe, for so many steps in all.

    Raises:
      ValueError: A number is out of its range.
    """
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    if recipe.grda is None:
        return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
    return GRDA(schedule, *recipe.grda)


def train(model: Any, data: Dataset, workdir: Path, recipe: Recipe) -> dict[str, Any]:
    """Trains a pruned model.

    Args:
      model: What `prune` returned.
      data: The data set.
      workdir: Folder for `history.csv` and TensorBoard's event files; it must exist.
      recipe: How.

    Returns:
      `epochs`, `final_accuracy`, `best_accuracy` and `final_top5_accuracy` on the test
      images (0 to 1), `final_sparsity` (zeros over all trainable weights, 0 to 1), and
      `seconds`.
    """
    images = len(data.train[0])
    steps = recipe.epochs * -(-images // recipe.batch_size)
    model.compile(
        optimizer(recipe, steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5_accuracy"),
        ],
    )
    whole = tf.data.Dataset.from_tensor_slices(data.train)
    shuffled = whole.shuffle(images, recipe.seed)
    history = HistoryFile(workdir / "history.csv")
    start = time.perf_counter()
    model.fit(
        shuffled.batch(recipe.batch_size),
        epochs=recipe.epochs,
        validation_data=tf.data.Dataset.from_tensor_slices(data.test).batch(256),
        callbacks=[
            PruningCallback(log_dir=workdir / "tensorboard" / "pruning"),
            SparsityCallback(),
            history,
            keras.callbacks.TensorBoard(workdir / "tensorboard"),
        ],
    )
    return {
        "epochs": recipe.epochs,
        "final_accuracy": history.rows[-1]["val_accuracy"],
        "best_accuracy": max(row["val_accuracy"] for row in history.rows),
        "final_top5_accuracy": history.rows[-1]["val_top5_accuracy"],
        "final_sparsity": sparsity(model),
        "seconds": time.perf_counter() - start,
    }


def read_history(workdir: Path) -> list[dict[str, float]]:
    """The rows of a run's `history.csv`."""
    with open(workdir / "history.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
