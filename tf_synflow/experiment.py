"""One run: build, prune, retrain, evaluate, and write what came out."""

import itertools
import json
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from tf_synflow import data as data_lib
from tf_synflow import figures, models, training
from tf_synflow._compat import keras
from tf_synflow.ablations import reinitialise, shuffle
from tf_synflow.collapse import emptied
from tf_synflow.files import written_whole
from tf_synflow.mask_files import save_masks
from tf_synflow.policy import PruningPolicy
from tf_synflow.report import report
from tf_synflow.rewinding import prune_with_rewinding
from tf_synflow.training import Recipe
from tf_synflow.wrapping import apply_masks, get_masks, strip

_PACKAGES = ("tf_synflow", "tensorflow", "tf_keras", "tensorflow-model-optimization")


class Ablation(NamedTuple):
    """What is done to a network once it is pruned; see `ablations`.

    Attributes:
      shuffle: Shuffles each mask within its weight tensor.
      reinitialise: Draws the weights anew.
    """

    shuffle: bool = False
    reinitialise: bool = False


def run(
    workdir: Path,
    *,
    model: str,
    dataset: str,
    ratio: float,
    policy: PruningPolicy,
    recipe: Recipe,
    prune_images: int | None = None,
    levels: int = 0,
    ablation: Ablation = Ablation(),  # noqa: B008 (it cannot be changed)
    flags: Mapping[str, Any],
) -> dict[str, Any]:
    """Prunes a new network, trains it, and writes the files of the run.

    Args:
      workdir: Folder to write to; made if need be. It must not hold a run already.
      model: Name of the network; see `models.build`.
      dataset: Name of the data set; see `data.load`.
      ratio: See `PruningPolicy.masks`.
      policy: How to prune.
      recipe: How to train; its seed also seeds the weights and what is drawn at random.
      prune_images: How many random training images a criterion that needs data gets.
        Defaults to ten times the classes.
      levels: If above 0, so many levels of training, pruning and rewinding come before;
        see `prune_with_rewinding`. Defaults to 0.
      ablation: What is done to the pruned network. Defaults to nothing.
      flags: Written into the results as they are.

    Returns:
      What `results.json` holds. `prune.seconds` has the training of the levels in it.

    Raises:
      ValueError: A name or a number is wrong.
      FileExistsError: `workdir` holds a run already.
    """
    figures.pyplot()  # If pictures cannot be drawn, say so before the work is done.
    if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise FileExistsError(
            f"{str(workdir)!r} is no empty folder: it may hold another run. Choose "
            "another --workdir, or delete that one first"
        )
    data = data_lib.load(dataset)
    keras.utils.set_random_seed(recipe.seed)
    network = models.build(model, data.input_shape, data.classes)
    training.optimizer(recipe, steps=1)  # refuses what it cannot be made of
    images = 10 * data.classes if prune_images is None else prune_images
    sample = data_lib.sample(data, images, recipe.seed)
    start = time.perf_counter()
    if levels:
        pruned = _rewound(network, ratio, policy, data, sample, workdir, recipe, levels)
    else:
        pruned = apply_masks(network, policy.masks(network, ratio, sample))
    if ablation.shuffle:
        pruned = apply_masks(network, shuffle(get_masks(pruned), recipe.seed))
    if ablation.reinitialise:
        pruned = reinitialise(pruned, recipe.seed + 1)
    seconds = time.perf_counter() - start
    layers = report(pruned).layers
    workdir.mkdir(parents=True, exist_ok=True)
    save_masks(workdir / "masks.npz", get_masks(pruned))
    trained = training.train(pruned, data, workdir, recipe)
    results = {
        "flags": dict(flags),
        "versions": versions(),
        "prune": {
            "criterion": policy.criterion,
            "ratio": ratio,
            "prunable": sum(row["size"] for row in layers),
            "kept": sum(row["kept"] for row in layers),
            "seconds": seconds,
            "collapsed_layers": emptied(get_masks(pruned)),
        },
        "train": trained,
        "layers": layers,
    }
    title = f"{model} on {dataset}: {policy.criterion}, compression ratio {ratio:g}"
    _write(workdir, pruned, title, results)
    return results


def _write(workdir: Path, pruned: Any, title: str, results: Mapping[str, Any]) -> None:
    """Writes the trained model, the picture and, last, the results."""
    with written_whole(workdir / "model.keras") as aside:
        strip(pruned).save(aside)
    history = training.read_history(workdir)
    figures.run_figure(workdir / "run.png", title, results["layers"], history)
    with written_whole(workdir / "results.json") as aside:
        aside.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def _rewound(
    network: Any,
    ratio: float,
    policy: PruningPolicy,
    data: data_lib.Dataset,
    sample: tuple,
    workdir: Path,
    recipe: Recipe,
    levels: int,
) -> Any:
    """The network after levels of training, each with a folder of its own."""
    numbers = itertools.count(1)

    def train(pruned: Any) -> None:
        level = workdir / f"level_{next(numbers)}"
        level.mkdir(parents=True)
        training.train(pruned, data, level, recipe)

    return prune_with_rewinding(
        network, ratio, train, levels, policy=policy, data=sample
    )


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
