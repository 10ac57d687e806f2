"""Callbacks: PruningCallback keeps a model pruned, SparsityCallback counts zeros."""

import math
import os
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.checks import check_count
from tf_synflow.masks.counts import pruned_fraction
from tf_synflow.masks.types import Masks
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.reporting.counting import report_of
from tf_synflow.reporting.report import Report


class Callback:
    """A callback without a base class of Keras, for `fit` of Keras 2 and Keras 3.

    It has the methods that Keras calls. In this class, these methods do nothing.
    Because Keras is not needed here, importing the library imports no Keras that is not
    used.
    """

    params: Any = None
    _model: Any = None

    def set_params(self, params: Any) -> None:
        """Keeps the parameters of `fit`."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Keeps the model that is trained."""
        self._model = model

    @property
    def model(self) -> Any:
        """The model that is trained, with the present values of its variables.

        With JAX, Keras 3 keeps these values elsewhere during an epoch, until it is
        asked for them.
        """
        if (sync := getattr(self._model, "jax_state_sync", None)) is not None:
            sync()
        return self._model

    def __getattr__(self, name: str) -> Any:
        """Gives a function that does nothing for each hook that a subclass lacks."""
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        # Keras 2 asks whether it has to call the hooks of batches.
        if name.startswith("_implements_") and name.endswith("_batch_hooks"):
            phase = name.removeprefix("_implements_").removesuffix("_batch_hooks")
            hooks = {f"on_{phase}_batch_begin", f"on_{phase}_batch_end"}
            return lambda: bool(hooks.intersection(dir(type(self))))
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")


class PruningCallback(Callback):
    """The one callback that pruning needs; it also replaces `UpdatePruningStep`.

    Pruned weights are zero whenever other code can read them: after each batch, in a
    `ModelCheckpoint` before or after this callback, with `use_ema=True`, and at the end
    of training. This callback may stand anywhere in the list of callbacks. The list may
    have several of them, one for each step of pruning.

    Without a ratio, the callback keeps a pruned model pruned. With a ratio, it prunes
    the model at the beginning of an epoch. A plain compiled model stays plain, and
    stays the same object; only its weights become sparse:

    ```python
    model.fit(dataset, callbacks=[tf_synflow.PruningCallback(ratio=100)])
    ```

    The callback adds `density` (kept over prunable weights, 0 to 1) to the logs of each
    epoch. The progress bar, the history and all later callbacks get this value.

    A pruned weight stays pruned, even if another callback restores old weights. If
    `EarlyStopping(restore_best_weights=True)` restores an epoch from before pruning,
    this callback zeroes the pruned weights again. It also warns, because the remaining
    weights were never trained as a pruned network.
    `EarlyStopping(start_from_epoch=epoch)` looks at the pruned epochs only. (This
    callback zeroes pruned weights for the last time at the end of `fit`. If another
    callback looks at the weights in its `on_train_end`, the order has to be:
    EarlyStopping, this callback, the other callback.) The best epoch that
    `ModelCheckpoint(save_best_only=True)` saves may be from before pruning too. If its
    file is loaded into a plain model, the weights are dense; `report` and `get_masks`
    say so.
    """

    def __init__(
        self,
        ratio: float | None = None,
        policy: PruningPolicy | None = None,
        data: Any = None,
        epoch: int = 0,
        log_dir: str | os.PathLike[str] | None = None,
    ):
        """Makes the callback; an instance can serve several calls of `fit`.

        Args:
          ratio: How much to prune; see `PruningPolicy.masks`. Defaults to None: keep a
            pruned model pruned.
          policy: How to prune. Defaults to `PruningPolicy()`.
          data: Data for the criteria that need it; see `PruningPolicy.score`. Defaults
            to None.
          epoch: The model is pruned at the beginning of this epoch, counted from 0.
            Defaults to 0.
          log_dir: Folder for TensorBoard: `density`, `effective_density` and
            `dead_channels` of each layer and of the network, after each epoch. Defaults
            to None: nothing is written.

        Raises:
          TypeError: `ratio` is no number, `policy` no PruningPolicy, or `epoch` no
            whole number.
          ValueError: `ratio` is NaN, infinite or negative; `epoch` is negative; or a
            policy or data is given without a ratio.
        """
        if ratio is not None:
            pruned_fraction(ratio)
        elif policy is not None or data is not None:
            raise ValueError(
                "a policy or data without a ratio prunes nothing: add ratio="
            )
        if policy is not None and not isinstance(policy, PruningPolicy):
            raise TypeError(
                f"policy must be a tf_synflow.PruningPolicy, got {policy!r}"
            )
        check_count("epoch", epoch, lowest=0)
        self.ratio = ratio
        self.policy = policy
        self.data = data
        self.epoch = epoch
        self.log_dir = log_dir
        self._writer: Any = None
        self._report: Report | None = None
        self._reported = 0  # kept weights at that time
        self._holder: Any = None
        self._to_prune = False

    @property
    def masks(self) -> Masks:
        """Name to boolean array, True where a weight is kept; empty before pruning."""
        return self._holder.masks if self._holder else {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the masks of the model, and starts to keep pruned weights at zero."""
        self._to_prune = self.ratio is not None
        self._report = None
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))
        self._holder = frameworks.adapter_of(self.model).Holder(self.model)
        self._holder.look()
        if not self.masks and self.ratio is None:
            raise ValueError(
                f"model {self.model.name!r} is not pruned, so there is nothing to keep "
                "pruned: give PruningCallback a ratio=, or train what tf_synflow.prune "
                "returned. (A stripped model has lost its masks: "
                "tf_synflow.apply_masks(model, masks) gives them back)"
            )
        self._mend()
        self._holder.begin()
        if self._to_prune:
            # Check this now, not after the epochs that come before pruning.
            self._task().check(self.ratio)
        self._come_last()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Prunes the model, if it has to be pruned in this epoch."""
        self._mend()  # another callback may have put weights back
        # Not ==: training that is resumed after that epoch has to be pruned as well.
        if self._to_prune and epoch >= self.epoch:
            self._to_prune = False
            self._holder.take(self._task().masks(self.ratio))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Zeroes the averages of pruned weights, which no constraint reaches."""
        if self._holder.has_averages:
            _ = self.model  # brings the variables up to date
            self._holder.zero_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the density."""
        self._holder.look()  # another callback may have pruned since
        self._mend()
        if logs is not None:
            kept, size = self._holder.count()
            logs["density"] = kept / size if size else 1.0
        if self._writer is not None:
            self._log(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Zeroes pruned weights again: an optimizer may change weights at the end."""
        self._mend()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._to_prune:
            warnings.warn(
                f"PruningCallback was to prune at the beginning of epoch {self.epoch} "
                "(counted from 0), but training ended before; nothing is pruned",
                stacklevel=2,
            )

    def _come_last(self) -> None:
        """Zeroes pruned weights again after the `on_train_end` of every callback.

        EarlyStopping restores weights in its `on_train_end`. Keras calls the History
        object of `fit` after the callbacks that the user gave, so this method uses that
        object.
        """
        history = getattr(self.model, "history", None)
        if history is None:
            return  # a training loop of the user's own
        before = history.on_train_end

        def on_train_end(logs: Any = None) -> None:
            vars(history).pop("on_train_end", None)
            before(logs)
            self._mend()

        history.on_train_end = on_train_end

    def _log(self, epoch: int) -> None:
        """Writes TensorBoard's events."""
        kept, _ = self._holder.count()
        # A pruned weight stays pruned. So if the masks change, they keep fewer weights.
        if self._report is None or kept != self._reported:
            self._report, self._reported = report_of(self._holder.network()), kept
        whole = self._report.totals
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("density", whole["prunable"]["density"])
            for what in ("effective_density", "dead_channels"):
                if whole[what] is not None:
                    tf.summary.scalar(what, whole[what])
            for row in self._report.layers:
                for what in ("density", "effective_density", "dead_channels"):
                    if row[what] is not None:
                        tf.summary.scalar(f"{what}/{row['name']}", row[what])
        self._writer.flush()

    def _task(self) -> Any:
        """The task of pruning the model as it is now."""
        policy = self.policy or PruningPolicy()
        return policy.task(self._holder.network(), self.data)

    def _mend(self) -> None:
        """Zeroes pruned weights, and warns if some of them had come back."""
        _ = self.model  # brings its variables up to date
        back = self._holder.mend()
        if back:
            _, size = self._holder.count()
            warnings.warn(
                f"weights from before pruning were put back into model "
                f"{self.model.name!r}: {back} of {size} weights were pruned, but had "
                "come back. They are zero again. If EarlyStopping("
                "restore_best_weights=True) did it, the best epoch lies before "
                "pruning, and the weights that are left were never trained as a pruned "
                "network: its start_from_epoch= says from which epoch on to look",
                stacklevel=3,
            )


def sparsity(model: Any) -> float:
    """The fraction of a model's trainable weights that are exactly zero, 0 to 1."""
    weights = model.trainable_variables
    zeros = sum(int(np.count_nonzero(weight.numpy() == 0)) for weight in weights)
    size = sum(math.prod(weight.shape) for weight in weights)
    return zeros / size if size else 0.0


class SparsityCallback(Callback):
    """Adds `sparsity` to the logs of each epoch, for the history and later callbacks.

    `sparsity` is the fraction, 0 to 1, of all trainable weights (also biases and
    weights of normalisation layers) that are exactly zero. An optimizer such as
    `tf_synflow.optimizers.GRDA` makes weights zero. This callback does not change the
    model. Place it before the callbacks that use the number.
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the sparsity."""
        if logs is not None:
            logs["sparsity"] = sparsity(self.model)
