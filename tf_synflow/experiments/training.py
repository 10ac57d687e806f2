"""Trains a pruned network, and continues the training of a killed run."""

from pathlib import Path
from typing import Any

from tf_synflow.experiments.checkpoints import BestModel, Checkpoints, HistoryFile
from tf_synflow.experiments.data import Dataset, ImageNet, Share
from tf_synflow.experiments.recipe import Recipe, TemperedCrossentropy, optimizer
from tf_synflow.files.whole import write_csv
from tf_synflow.keras2.imports import keras
from tf_synflow.network import Network
from tf_synflow.pruning.callbacks import PruningCallback, SparsityCallback, sparsity


def train(
    network: Network,
    data: Dataset | ImageNet,
    workdir: Path,
    recipe: Recipe,
    written: Path | None = None,
    run: str = "",
) -> dict[str, Any]:
    """Trains a pruned model, or continues the training of a killed run.

    Args:
      network: A model that `prune` or `prune_filters` returned, as a `Network`. The
        model is trained under the `tf.distribute` strategy that it was made under.
      data: The data set.
      workdir: Folder for `history.csv`, TensorBoard's event files and checkpoints,
        which are left in `checkpoints/`. The folder must exist.
      recipe: How to train.
      written: The folder that this process writes to. If several processes train
        together, those that are not the chief have folders of their own. Defaults to
        `workdir`.
      run: Name of the training; a checkpoint of another name is refused. Defaults to
        "".

    Returns:
      `epochs`, `final_accuracy`, `best_accuracy` and `final_top5_accuracy` on the test
      images (0 to 1), `best_epoch` (counted from 1, the first of equals),
      `final_sparsity` (zeros over all trainable weights, 0 to 1), and `seconds`, all
      epochs together.
    """
    model, steps = network.model, data.steps(recipe.batch_size)
    with model.distribute_strategy.scope():
        model.compile(
            optimizer(recipe, steps),
            TemperedCrossentropy(recipe.temperature),
            metrics=[
                keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
                keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5_accuracy"),
            ],
        )
    written = written or workdir
    history = HistoryFile(written / "history.csv", [])
    done = Checkpoints(workdir / "checkpoints", history, run).restore(model)
    if done < recipe.epochs:
        model.fit(
            _training(model.distribute_strategy, data, recipe, done),
            steps_per_epoch=steps,
            epochs=recipe.epochs,
            initial_epoch=done,
            validation_data=data.testing(),
            callbacks=[
                *_keeping_pruned(network, written / "tensorboard" / "pruning"),
                SparsityCallback(),
                history,
                *_keeping_best(recipe, written / "best.keras", network, history),
                Checkpoints(written / "checkpoints", history, run),
                keras.callbacks.TensorBoard(written / "tensorboard"),
            ],
        )
    else:
        write_csv(history.path, history.rows)
    rows = history.rows
    best_row = max(rows, key=lambda row: row["val_accuracy"])
    return {
        "epochs": recipe.epochs,
        "final_accuracy": rows[-1]["val_accuracy"],
        "best_accuracy": best_row["val_accuracy"],
        "best_epoch": best_row["epoch"],
        "final_top5_accuracy": rows[-1]["val_top5_accuracy"],
        "final_sparsity": sparsity(model),
        "seconds": sum(row["seconds"] for row in rows),
    }


def _keeping_pruned(network: Network, log_dir: Path) -> list[PruningCallback]:
    """The callback for a network with masks; none for one left by filter pruning."""
    return [PruningCallback(log_dir=log_dir)] if network.masks else []


def _keeping_best(
    recipe: Recipe, path: Path, network: Network, history: HistoryFile
) -> list[BestModel]:
    return [BestModel(path, network, history)] if recipe.save_best else []


def _training(
    strategy: Any, data: Dataset | ImageNet, recipe: Recipe, epoch: int
) -> Any:
    """The training batches, for all replicas of this process."""
    epoch += recipe.seen
    if strategy.num_replicas_in_sync == 1:
        return data.training(recipe.batch_size, recipe.seed, epoch)

    def share(context: Any) -> Any:
        of = context.num_replicas_in_sync
        replicas = of // context.num_input_pipelines
        first = context.input_pipeline_id * replicas
        part = Share(first, replicas, of)
        return data.training(recipe.batch_size, recipe.seed, epoch, part)

    return strategy.distribute_datasets_from_function(share)
