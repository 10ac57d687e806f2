"""PruningCallback: keeps a pruned model pruned, or prunes a plain one inside `fit`."""

import os
import warnings
from typing import Any

from tf_synflow import wrapping
from tf_synflow._compat import keras, tf
from tf_synflow.graph import flatten, named_weights
from tf_synflow.masks import Masks, check_count, pruned_fraction
from tf_synflow.policy import PruningPolicy
from tf_synflow.report import Report, report


class PruningCallback(keras.callbacks.Callback):
    """The one callback that pruning needs, also in place of `UpdatePruningStep`.

    Pruned weights are zero whenever anyone can look: after each batch, in a
    `ModelCheckpoint` placed before or after this callback, with `use_ema=True`, at the
    end of training. It may stand anywhere among the callbacks.

    Without a ratio it keeps a pruned model pruned; it is what makes a model that was
    loaded from a file stay sparse while it is trained further. With a ratio it prunes
    the model at the beginning of an epoch; a plain compiled model stays plain, the same
    object, and only its weights become sparse:

    ```python
    model.fit(dataset, callbacks=[tf_synflow.PruningCallback(ratio=100)])
    ```

    It adds `density` (kept over prunable weights, 0 to 1) to the logs of each epoch,
    for the progress bar, the history and the callbacks that come after it.
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
        self._pairs: dict[str, tuple[Any, Any]] = {}
        self._to_prune = False

    @property
    def masks(self) -> Masks:
        """Name to boolean array, True where a weight is kept; empty before pruning."""
        return {n: mask.numpy().astype(bool) for n, (_, mask) in self._pairs.items()}

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes hold of the masks there are."""
        self._to_prune = self.ratio is not None
        self._report = None
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))
        graph = flatten(self.model)
        self._pairs = wrapping.masked_weights(graph)
        if not self._pairs and self.ratio is None:
            raise ValueError(
                f"model {self.model.name!r} is not pruned, so there is nothing to keep "
                "pruned: give PruningCallback a ratio=, or train what tf_synflow.prune "
                "returned. (A stripped model has lost its masks: "
                "tf_synflow.apply_masks(model, masks) gives them back)"
            )
        if self._to_prune:
            # Now, and not after the epochs that come before pruning.
            self._policy().check(self.model, self.ratio, self.data)
        for call in graph.calls:
            if call.wrapper is not None:
                # At -1 tfmot stops training and demands its own callback.
                call.wrapper.pruning_step.assign(
                    tf.maximum(call.wrapper.pruning_step, 0)
                )
        self._hold()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Prunes, if this is the epoch for it."""
        # Not ==: training that is resumed after that epoch has to be pruned as well.
        if self._to_prune and epoch >= self.epoch:
            self._to_prune = False
            self._take(self._policy().masks(self.model, self.ratio, self.data))
            self._hold()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Zeroes what no constraint reaches: the averages of `use_ema=True`."""
        self._zero_averages()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the density."""
        self._zero()
        if logs is not None:
            kept = sum(float(tf.reduce_sum(m)) for _, m in self._pairs.values())
            size = sum(m.shape.num_elements() for _, m in self._pairs.values())
            logs["density"] = kept / size if size else 1.0
        if self._writer is not None:
            self._log(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Zeroes once more, whatever an optimizer did at the end of training."""
        self._zero()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._to_prune:
            warnings.warn(
                f"PruningCallback was to prune at the beginning of epoch {self.epoch} "
                "(counted from 0), but training ended before; nothing is pruned",
                stacklevel=2,
            )

    def _log(self, epoch: int) -> None:
        """Writes TensorBoard's events; masks change only where they are taken."""
        self._report = self._report or report(self.model)
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

    def _take(self, masks: Masks) -> None:
        """Writes masks into the wrappers, or makes variables for a plain model."""
        self._report = None
        variables = named_weights(flatten(self.model))
        self._pairs = {name: self._pairs.get(name) for name in masks}
        with self.model.distribute_strategy.scope():
            for name, mask in masks.items():
                weight = variables[name]
                if self._pairs[name] is None:
                    variable = tf.Variable(
                        tf.ones(weight.shape, tf.float32),
                        trainable=False,
                        aggregation=tf.VariableAggregation.MEAN,
                    )
                    self._pairs[name] = (weight, variable)
                self._pairs[name][1].assign(mask.astype("float32"))

    def _hold(self) -> None:
        """Puts the constraints on, and has the training step traced with them."""
        new = [wrapping.constrain(w, m) for w, m in self._pairs.values()]
        self._zero()
        if any(new) and self.model.train_function is not None:
            self.model.make_train_function(force=True)

    def _zero(self) -> None:
        for weight, mask in self._pairs.values():
            wrapping.zero_pruned(weight, mask)
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
                wrapping.zero_pruned(averages[place], mask)
