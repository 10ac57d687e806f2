"""Files that a run writes after each epoch, so that a killed run can continue."""

import csv
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.files.whole import (
    file_digest,
    read_json,
    write_csv,
    write_json,
    written_whole,
)
from tf_synflow.keras2.imports import keras
from tf_synflow.network import Network

_RECORD = "checkpoint.json"


class HistoryFile(keras.callbacks.Callback):
    """Writes the logs of all epochs so far to a CSV file after each epoch."""

    def __init__(self, path: Path, rows: list[dict[str, float]]):
        """Makes the callback.

        Args:
          path: The file.
          rows: The rows of the epochs that are done already.
        """
        super().__init__()
        self.path = path
        self.rows = rows

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds a row: epoch (from 1), the logs, and seconds."""
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}}
        self.rows.append({**row, "seconds": time.perf_counter() - self._start})
        write_csv(self.path, self.rows)


class BestModel(keras.callbacks.Callback):
    """Writes the model after each epoch with a higher test accuracy than all before.

    The file holds the trained model, stripped. A run that continues after a kill writes
    the model after the same epochs as an undisturbed run, because the history has the
    best accuracy so far.
    """

    def __init__(self, path: Path, network: Network, history: HistoryFile):
        """Makes the callback, which has to come after the history.

        Args:
          path: The file.
          network: The network that is trained.
          history: The callback that has the rows of the epochs.
        """
        super().__init__()
        self._path, self._network, self._history = path, network, history

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the model if its epoch is the best so far."""
        *before, now = (row["val_accuracy"] for row in self._history.rows)
        if all(now > accuracy for accuracy in before):
            with written_whole(self._path) as aside:
                frameworks.stripped(self._network).save(aside)


class Checkpoints(keras.callbacks.Callback):
    """Keeps what the next epoch needs: weights, masks, optimizer and history.

    Each checkpoint is a folder, `epoch_<epochs done>`, which gets this name when it is
    whole. Then the checkpoint before is deleted. So a killed run always leaves a whole
    checkpoint, or none if it has not finished an epoch.

    Under a strategy, each replica has its own BatchNormalization statistics. A
    checkpoint holds the statistics of all replicas. So training that continues on the
    same number of replicas gives the same bits. On another number of replicas, training
    continues with the mean of the statistics. In each checkpoint, `checkpoint.json` has
    the digests of the files and the name of the training.
    """

    def __init__(self, folder: Path, history: HistoryFile, run: str = ""):
        """Makes the callback; `folder` is created if it does not exist.

        Args:
          folder: Folder for the checkpoints.
          history: The callback that writes `history.csv`.
          run: Name of the training; checkpoints of another training are refused.
            Defaults to "".
        """
        super().__init__()
        self.folder = folder
        self.history = history
        self.run = run

    def restore(self, model: Any) -> int:
        """Sets a compiled model, and the history, to the last checkpoint.

        Returns:
          The number of epochs that are done; 0 if there is no checkpoint.

        Raises:
          ValueError: The checkpoint is damaged, or not the same for all processes.
        """
        found = {
            int(match[1]): path
            for path in self.folder.glob("epoch_*")
            if (match := re.fullmatch(r"epoch_(\d+)", path.name))
        }
        done = max(found, default=0)
        seen = set(map(int, _on_all_replicas(model, lambda: [tf.constant(done)])[0]))
        if len(seen) > 1:
            raise ValueError(
                "the processes of this run do not see the same checkpoints in "
                f"{str(self.folder)!r}: some have {min(seen)} epochs done, some "
                f"{max(seen)}. Give them all the same folder, on a disk that they share"
            )
        if not done:
            return 0
        path = str(found[done] / "state")
        try:
            _check_files(found[done], {"epochs": done, "run": self.run})
            # In the scope of the strategy: all replicas would share the optimizer's
            # variables without it.
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
                _state(model).read(path).assert_existing_objects_matched()
                _restore_replicas(model, path)
            self.history.rows[:] = read_history(found[done])
        # For a damaged file, TensorFlow raises errors of many kinds, also IndexError.
        except Exception as error:
            raise ValueError(
                f"the checkpoint {str(found[done])!r} is damaged ({error}). Delete "
                f"{str(self.folder)!r} to train from the beginning"
            ) from error
        return done

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes a checkpoint, and deletes those before it."""
        self.folder.mkdir(exist_ok=True)
        final = self.folder / f"epoch_{epoch + 1}"
        with written_whole(final) as aside:
            aside.mkdir()
            try:
                own = _on_all_replicas(self.model, lambda: _apart(self.model))
                _state(self.model, own).write(str(aside / "state"))
            except tf.errors.OpError as error:
                raise OSError(
                    f"cannot write {str(final)!r}: {error.message}"
                ) from error
            write_csv(aside / "history.csv", self.history.rows)
            files = {
                path.relative_to(aside).as_posix(): file_digest(path)
                for path in sorted(aside.rglob("*"))
                if path.is_file()
            }
            record = {"epochs": epoch + 1, "run": self.run, "files": files}
            write_json(aside / _RECORD, record)
        for path in self.folder.iterdir():
            if path != final:
                shutil.rmtree(path, ignore_errors=True)


def _check_files(checkpoint: Path, expected: dict[str, Any]) -> None:
    """Checks that a checkpoint is, byte for byte, as it was written.

    Raises:
      FileNotFoundError, ValueError: A file is missing or damaged, or of another run.
    """
    record = read_json(checkpoint / _RECORD)
    files = record.pop("files")
    if record != expected:
        raise ValueError(f"it is that of {record}, expected {expected}")
    for name, digest in files.items():
        if file_digest(checkpoint / name) != digest:
            raise ValueError(f"{name} is not as it was written")


def _state(model: Any, replicas: Sequence[Any] = ()) -> Any:
    """All that training changes: weights, masks, optimizer, and states of Dropout.

    Args:
      model: The compiled model.
      replicas: Values on all replicas of the variables from `_apart`. Defaults to none,
        for reading: `_restore_replicas` reads these variables.
    """
    random = [getattr(part, "_random_generator", None) for part in model.submodules]
    generators = [r._generator for r in random if r is not None and r._generator]
    return tf.train.Checkpoint(
        model=model,
        optimizer=model.optimizer,
        generators=generators,
        replicas=[tf.Variable(values) for values in replicas],
    )


def _apart(model: Any) -> list[Any]:
    """The variables that have their own value on each replica."""
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return []
    apart = tf.VariableSynchronization.ON_READ
    return [v for v in model.variables if v.synchronization == apart]


def _on_all_replicas(model: Any, values: Callable[[], list[Any]]) -> list[Any]:
    """Results of a function on all replicas of all processes: (replicas, *shape)."""
    strategy = model.distribute_strategy

    @tf.function
    def gathered() -> list[Any]:
        # Outside of a replica, reading a variable of `_apart` gives the mean over all
        # replicas.
        own = strategy.run(lambda: [tf.identity(value)[None] for value in values()])
        return [strategy.gather(value, axis=0) for value in own]

    if strategy.num_replicas_in_sync == 1:
        return [tf.identity(value)[None] for value in values()]
    return gathered()


def _restore_replicas(model: Any, path: str) -> None:
    """Sets the variables of `_apart`, if they were saved by as many replicas."""
    strategy, variables = model.distribute_strategy, _apart(model)
    saved = tf.train.load_checkpoint(path)
    keys = [f"replicas/{n}/.ATTRIBUTES/VARIABLE_VALUE" for n in range(len(variables))]
    if not keys or not all(saved.has_tensor(key) for key in keys):
        return
    values = [saved.get_tensor(key) for key in keys]
    if len(values[0]) != strategy.num_replicas_in_sync:
        return

    @tf.function
    def assign() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for variable, value in zip(variables, values, strict=True):
            variable.assign(tf.gather(value, replica))

    strategy.run(assign)


def read_history(workdir: Path) -> list[dict[str, float]]:
    """The rows of a run's `history.csv`, one for each epoch.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged: it has no rows, a value that is not a number, or
        other epochs than 1, 2, 3 and so on.
    """
    path = workdir / "history.csv"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file, strict=True))
        rows = [{k: float(v) for k, v in row.items()} for row in table]
        epochs = [row["epoch"] for row in rows]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not rows or epochs != list(range(1, len(rows) + 1)):
        raise ValueError(
            f"{str(path)!r} is damaged: expected rows for epochs 1, 2, 3 and so on, "
            f"got {epochs}"
        )
    return [{**row, "epoch": int(row["epoch"])} for row in rows]
