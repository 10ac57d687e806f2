"""PruningCallback: keeps a pruned model pruned, or prunes a plain one inside `fit`."""

import os
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.checks import check_count
from tf_synflow.keras2.constraints import constrain, zero_pruned
from tf_synflow.keras2.imports import keras
from tf_synflow.keras2.reading import flatten, masked_weights, wrapped_weights
from tf_synflow.keras2.wrapping import hold
from tf_synflow.masks.counts import pruned_fraction
from tf_synflow.masks.types import Masks
from tf_synflow.network import named_weights
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.reporting.counting import report
from tf_synflow.reporting.report import Report


class PruningCallback(keras.callbacks.Callback):
    """The one callback that pruning needs, also in place of `UpdatePruningStep`.

    Pruned weights are zero whenever anyone can look: after each batch, in a
    `ModelCheckpoint` placed before or after this callback, with `use_ema=True`, at the
    end of training. It may stand anywhere among the callbacks, and there may be several
    (one for each step of pruning in turn).

    Without a ratio it keeps a pruned model pruned. With a ratio it prunes the model at
    the beginning of an epoch; a plain compiled model stays plain, the same object, and
    only its weights become sparse:

    ```python
    model.fit(dataset, callbacks=[tf_synflow.PruningCallback(ratio=100)])
    ```

    It adds `density` (kept over prunable weights, 0 to 1) to the logs of each epoch,
    for the progress bar, the history and the callbacks that come after it.

    A pruned weight stays pruned, whatever puts weights back. If
    `EarlyStopping(restore_best_weights=True)` restores an epoch from before pruning,
    this callback zeroes the pruned weights of that epoch and warns: what is left was
    never trained as a pruned network. `EarlyStopping(start_from_epoch=epoch)` looks at
    the pruned epochs only. (Zeroing is this callback's last act in `fit`. If another
    callback looks at the weights in its `on_train_end`, the order has to be:
    EarlyStopping, this callback, the other.) `ModelCheckpoint(save_best_only=True)` may
    have saved its best epoch before pruning too; loaded into a plain model, that file
    gives dense weights, and `report` and `get_masks` say so.
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
          ratio: What to prune to; see `PruningPolicy.masks`. Defaults to None: keep a
            pruned model pruned.
          policy: How to prune. Defaults to `PruningPolicy()`.
          data: For criteria that need it. Defaults to None.
          epoch: The epoch, counted from 0, at whose beginning to prune. Defaults to 0.
          log_dir: Folder for TensorBoard: `density`, `effective_density` and
            `dead_channels` of each layer and of the network, after each epoch. Defaults
            to None: no events.

        Raises:
          TypeError: `ratio` is no number, `policy` no PruningPolicy, or `epoch` no
            whole number.
          ValueError: `ratio` is NaN, infinite or negative, or `epoch` is negative.
        """
        super().__init__()
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
        self._pairs: dict[str, tuple[Any, Any]] = {}
        self._held: Masks = {}  # what this callback pruned to in this training
        self._wrapped: set[int] = set()
        self._to_prune = False

    @property
    def masks(self) -> Masks:
        """Name to boolean array, True where a weight is kept; empty before pruning."""
        return {n: mask.numpy().astype(bool) for n, (_, mask) in self._pairs.items()}

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes hold of the masks there are."""
        self._to_prune = self.ratio is not None
        self._report, self._held = None, {}
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))
        self._look()
        if not self._pairs and self.ratio is None:
            raise ValueError(
                f"model {self.model.name!r} is not pruned, so there is nothing to keep "
                "pruned: give PruningCallback a ratio=, or train what tf_synflow.prune "
                "returned. (A stripped model has lost its masks: "
                "tf_synflow.apply_masks(model, masks) gives them back)"
            )
        new = hold(flatten(self.model))
        self._mend()
        self._trace_again(new)
        if self._to_prune:
            # Now, and not after the epochs that come before pruning.
            self._policy().check(self.model, self.ratio, self.data)
        self._come_last()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Prunes, if this is the epoch for it."""
        self._mend()  # what another callback put back since the last epoch
        # Not ==: training that is resumed after that epoch has to be pruned as well.
        if self._to_prune and epoch >= self.epoch:
            self._to_prune = False
            self._take(self._policy().masks(self.model, self.ratio, self.data))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Zeroes what no constraint reaches: the averages of `use_ema=True`."""
        self._zero_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the density."""
        self._look()  # another callback may have pruned since
        self._mend()
        if logs is not None:
            kept = sum(float(tf.reduce_sum(m)) for _, m in self._pairs.values())
            size = sum(m.shape.num_elements() for _, m in self._pairs.values())
            logs["density"] = kept / size if size else 1.0
        if self._writer is not None:
            self._log(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Zeroes once more, whatever an optimizer did at the end of training."""
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
        """Zeroes after `on_train_end` of every callback: EarlyStopping restores there.

        Keras calls the History of a `fit` after the callbacks that the user gave.
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
        kept = int(sum(np.count_nonzero(mask) for mask in self.masks.values()))
        # A pruned weight stays pruned, so other masks are masks of another size.
        if self._report is None or kept != self._reported:
            self._report, self._reported = report(self.model), kept
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

    def _policy(self) -> PruningPolicy:
        return self.policy or PruningPolicy()

    def _look(self) -> None:
        """Finds the masks that the model has, whoever wrote them."""
        graph = flatten(self.model)
        self._pairs = masked_weights(graph)
        self._wrapped = wrapped_weights(graph)

    def _take(self, masks: Masks) -> None:
        """Writes masks into the wrappers, or makes variables for a plain model."""
        graph = flatten(self.model)
        variables, pairs = named_weights(graph), masked_weights(graph)
        with self.model.distribute_strategy.scope():
            for name, mask in masks.items():
                if name not in pairs:
                    variable = tf.Variable(
                        tf.ones(variables[name].shape, tf.float32),
                        trainable=False,
                        aggregation=tf.VariableAggregation.MEAN,
                    )
                    pairs[name] = (variables[name], variable)
                pairs[name][1].assign(mask.astype("float32"))
        new = [constrain(weight, mask) for weight, mask in pairs.values()]
        self._held = masks
        self._look()
        self._zero()
        self._trace_again(any(new))

    def _trace_again(self, new: bool) -> None:
        """A training step that was traced before knows of no new constraint."""
        if new and self.model.train_function is not None:
            self.model.make_train_function(force=True)

    def _mend(self) -> None:
        """Zeroes what is pruned, and warns if it had come back."""
        back = sum(
            self._revived(name, weight, mask)
            for name, (weight, mask) in self._pairs.items()
        )
        self._zero()
        if back:
            size = sum(mask.size for mask in self.masks.values())
            warnings.warn(
                f"weights from before pruning were put back into model "
                f"{self.model.name!r}: {back} of {size} weights were pruned, but had "
                "come back. They are zero again. If EarlyStopping("
                "restore_best_weights=True) did it, the best epoch lies before "
                "pruning, and the weights that are left were never trained as a pruned "
                "network: its start_from_epoch= says from which epoch on to look",
                stacklevel=3,
            )

    def _revived(self, name: str, weight: Any, mask: Any) -> int:
        """How many pruned weights have come back; an older mask is mended."""
        now = mask.numpy().astype(bool)
        held = self._held.get(name, now)
        back = now & ~held
        if back.any():
            mask.assign((now & held).astype("float32"))
        if id(weight) not in self._wrapped:  # a wrapper zeroes by itself, as needed
            back = (weight.numpy() != 0) & ~(now & held)
        return int(np.count_nonzero(back))

    def _zero(self) -> None:
        for weight, mask in self._pairs.values():
            zero_pruned(weight, mask)
        self._zero_averages()

    def _zero_averages(self) -> None:
        optimizer = self.model.optimizer
        # Under mixed_float16 Keras puts an optimizer around the optimizer.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        if not getattr(optimizer, "use_ema", False) or not self._pairs:
            return
        # Neither is there before the optimizer's first step.
        averages = getattr(optimizer, "_model_variables_moving_average", [])
        places = getattr(optimizer, "_index_dict", {})
        for weight, mask in self._pairs.values():
            place = places.get(optimizer._var_key(weight))
            if place is not None and averages:
                zero_pruned(averages[place], mask)


def sparsity(model: Any) -> float:
    """The fraction of a model's trainable weights that are exactly zero, 0 to 1."""
    weights = model.trainable_variables
    zeros = sum(int(tf.math.count_nonzero(tf.equal(w, 0))) for w in weights)
    size = sum(weight.shape.num_elements() for weight in weights)
    return zeros / size if size else 0.0


class SparsityCallback(keras.callbacks.Callback):
    """Adds `sparsity` to the logs of each epoch, for the history and what comes after.

    It is the fraction, 0 to 1, of all trainable weights (kernels, biases and
    normalisation alike) that are exactly zero: what an optimizer such as
    `tf_synflow.optimizers.GRDA` has pruned. It changes nothing. Place it before the
    callbacks that are to see the number.
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the sparsity."""
        if logs is not None:
            logs["sparsity"] = sparsity(self.model)
