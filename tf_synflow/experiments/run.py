"""One run: build, prune, retrain, evaluate, and write the results."""

import dataclasses
import itertools
import platform
import time
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tf_synflow import frameworks, models
from tf_synflow.channels.plan import ChannelPlan
from tf_synflow.channels.shrinking import smaller_model, whole_model
from tf_synflow.criteria import DATA_FREE
from tf_synflow.experiments import data as data_lib
from tf_synflow.experiments import distribution, starting, training
from tf_synflow.experiments.checkpoints import read_history
from tf_synflow.experiments.picture import run_figure
from tf_synflow.experiments.recipe import Recipe, optimizer
from tf_synflow.experiments.run_folder import RunFolder, run_folder
from tf_synflow.experiments.settings import Place, Pruning
from tf_synflow.files.whole import write_json, written_whole
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network
from tf_synflow.policy.added_filters import hold_zero, kept_filters
from tf_synflow.pruning.ablations import reinitialise, shuffle
from tf_synflow.pruning.filter_rounds import in_rounds
from tf_synflow.pruning.masking import get_masks, masked, strip
from tf_synflow.pruning.rewinding import prune_with_rewinding
from tf_synflow.reporting.counting import report_of
from tf_synflow.reporting.picture import pyplot

_PACKAGES = ("tf_synflow", "tensorflow", "tf_keras", "tensorflow-model-optimization")


def run(
    workdir: Path,
    *,
    model: str,
    dataset: str,
    pruning: Pruning,
    recipe: Recipe,
    place: Place = Place(),  # noqa: B008 (it cannot be changed)
    start_from: str | None = None,
    flags: Mapping[str, Any],
) -> dict[str, Any]:
    """Prunes a new network, trains it, and writes the files of the run.

    A run that was killed continues from the last epoch that it finished. It ends with
    the same weights as an undisturbed run; its masks are not computed again. A finished
    run is left alone.

    Args:
      workdir: Folder to write to; it is created if it does not exist. If several
        processes train together, only the chief writes, but all should see the folder.
      model: Name of the network; see `models.build`.
      dataset: Name of the data set; see `data.load`.
      pruning: How to prune.
      recipe: How to train. Its seed also seeds the weights and all other random draws.
      place: Where the data is, and on which devices to train. Defaults to one device.
      start_from: A file of weights to begin with; see `starting.start_from`. Defaults
        to new weights.
      flags: Flags that are written into the results as they are. A run is continued
        only if it was begun with the same flags.

    Returns:
      The content of `results.json`. `prune.seconds` includes the training of the
      levels. If the run was killed during these levels, only the time of the process
      that finished them is included. `versions` are those of the process that finished
      the run. `earlier_versions`, if any, are different versions that earlier processes
      of a killed run used.

    Raises:
      ValueError: A name or a number is wrong.
      FileExistsError: `workdir` holds something else, or a run with other flags.
      BlockingIOError: Another process is at work in `workdir`.
    """
    pyplot()  # If pictures cannot be drawn, say so before the work is done.
    pruning.check()
    # Several processes have to find each other before any other use of TensorFlow.
    strategy = distribution.strategy(place.distribute, recipe.batch_size)
    optimizer(recipe, steps=1)  # raises an error for a wrong recipe
    with (
        # Pruning wrappers and the compiled model also take their precision from here.
        distribution.precision(place.precision),
        run_folder(workdir, flags, distribution.is_chief(strategy)) as folder,
    ):
        if folder.results is not None:
            return folder.results
        used = _versions_of(folder)
        data = data_lib.load(dataset, place.data_dir, place.download)
        if recipe.images is not None:
            data = data.first(recipe.images)
        data = data.scaled_by(place.mean, place.std)
        keras.utils.set_random_seed(recipe.seed)
        with strategy.scope():
            network = models.build(model, data.input_shape, data.classes)
        whole = frameworks.read(network)
        if start_from is not None:
            starting.start_from(whole, start_from)
        masks, small = _pruned(folder, whole, data, pruning, recipe)
        # A copied Dropout draws a new seed. This call makes it the same, whether the
        # masks were computed or loaded.
        keras.utils.set_random_seed(recipe.seed)
        pruned = masked(whole, masks)
        if pruning.reinitialise:
            pruned = reinitialise(pruned, recipe.seed + 1)
        start = trained = frameworks.read(pruned)
        plan = ChannelPlan(start, pruning.multiple_of)
        before = report_of(start, plan if pruning.multiple_of == 1 else None)
        if pruning.rounds:  # copied, whether trained or loaded just now
            small = strip(small)
            _hold_zero(small, whole, pruning, masks)
        if pruning.shrink:
            small = smaller_model(plan)
        if small is not None:
            trained = frameworks.read(small)
        recipe = dataclasses.replace(recipe, seen=pruning.rounds)
        numbers = training.train(
            trained, data, workdir, recipe, folder.written, folder.run
        )
        prune = _what_was_pruned(before.totals, pruning, folder.prune_seconds())
        if pruning.policy.granularity == "filter":
            prune["filters"] = _filters(whole, pruning, masks)
        results = {"flags": dict(flags), **used, "prune": prune, "train": numbers}
        results |= {"layers": before.layers, "files": folder.digests()}
        if small is not None:
            results["shrink"] = _shrunk(before.totals, report_of(trained).totals)
        if pruning.shrink:
            with written_whole(folder.written / "small.keras") as aside:
                frameworks.stripped(trained).save(aside)
            trained = frameworks.read(whole_model(plan, trained))
        _write(folder.written, trained, _title(model, dataset, pruning), results)
    return results


def _versions_of(folder: RunFolder) -> dict[str, Any]:
    """Entries of the results: the versions in use, and other versions used before."""
    used = versions()
    earlier = folder.note_versions(used)
    if not earlier:
        return {"versions": used}
    warnings.warn(
        f"parts of the run in {str(folder.workdir)!r} were computed with other "
        "versions, so its numbers may differ from those of a run that was not "
        f"interrupted: {_changes(earlier[-1], used)}",
        stacklevel=3,
    )
    return {"versions": used, "earlier_versions": earlier}


def _pruned(
    folder: RunFolder, network: Network, data: Any, pruning: Pruning, recipe: Recipe
) -> tuple[Masks, Any]:
    """The masks, computed or loaded; and the network, if pruning trains it."""
    masks = folder.masks()
    if masks is None:
        start = time.perf_counter()
        masks, small = _prune(folder, network, data, pruning, recipe)
        if small is not None:
            folder.keep_network(small)
        folder.keep_masks(masks, time.perf_counter() - start)
        return masks, small
    if not pruning.rounds:
        return masks, None
    with network.model.distribute_strategy.scope():
        return masks, folder.network()


def _prune(
    folder: RunFolder, network: Network, data: Any, pruning: Pruning, recipe: Recipe
) -> tuple[Masks, Any]:
    """Computes the masks of a run; returns also the network, if pruning trains it."""
    # Criteria have temperatures of their own; they do not use that of training.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    policy, sample = dataclasses.replace(pruning.policy, loss=loss), None
    if policy.criterion not in DATA_FREE:
        images = 10 * data.classes if pruning.images is None else pruning.images
        sample = data.sample(images, recipe.seed)
    numbers = itertools.count(1)

    def train(network: Any) -> None:
        number = next(numbers)
        # Rounds keep the weights, so each continues with the next images; levels do
        # not.
        seen = number - 1 if pruning.rounds else 0
        own = dataclasses.replace(level, seen=seen, save_best=False)
        _train_level(folder, number, network, data, own)

    if pruning.rounds:
        level = dataclasses.replace(recipe, epochs=1, decay="constant", drops=())
        small, masks = in_rounds(
            network.model,
            pruning.ratio,
            train,
            pruning.rounds,
            policy,
            sample,
            pruning.counting,
        )
        return masks, small
    if pruning.levels:
        level = recipe
        pruned = prune_with_rewinding(
            network.model,
            pruning.ratio,
            train,
            pruning.levels,
            policy=policy,
            data=sample,
        )
        masks = get_masks(pruned)
    else:
        masks = policy.task(network, sample).masks(pruning.ratio)
    return shuffle(masks, recipe.seed) if pruning.shuffle else masks, None


def _what_was_pruned(
    totals: Mapping[str, Any], pruning: Pruning, seconds: float
) -> dict[str, Any]:
    """The part `prune` of the results."""
    return {
        "criterion": pruning.policy.criterion,
        "ratio": pruning.ratio,
        "prunable": totals["prunable"]["size"],
        "kept": totals["prunable"]["kept"],
        "seconds": seconds,
        "collapsed_layers": totals["emptied"],
    }


def _shrunk(whole: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and multiply-adds before and after shrinking."""
    sizes = [
        {"parameters": totals["parameters"]["size"], "macs": totals["macs"]}
        for totals in (whole, small)
    ]
    return dict(zip(("before", "after"), sizes, strict=True))


def _hold_zero(small: Any, whole: Network, pruning: Pruning, masks: Masks) -> None:
    """Keeps the zeroed filters at zero: those whose channels are added to others."""
    added = pruning.counting.task(pruning.policy, whole, None).filters.added
    hold_zero(small, {name: kept_filters(masks[name]) for name in added})


def _filters(network: Network, pruning: Pruning, masks: Masks) -> dict[str, int]:
    """How many filters may be pruned, and how many of them are left."""
    task = pruning.counting.task(pruning.policy, network, None)
    standing = task.filters.standing(masks)
    kept = sum(int(flags.sum()) for flags in standing.values())
    return {"prunable": sum(flags.size for flags in standing.values()), "kept": kept}


def _title(model: str, dataset: str, pruning: Pruning) -> str:
    what = "compression ratio" if pruning.ratio >= 1 else "fraction removed"
    of = ", of filters" if pruning.policy.granularity == "filter" else ""
    criterion = pruning.policy.criterion
    return f"{model} on {dataset}: {criterion}, {what} {pruning.ratio:g}{of}"


def _train_level(
    folder: RunFolder, level: int, pruned: Any, data: Any, recipe: Recipe
) -> None:
    """Trains the network of a level, in a folder of its own."""
    name = f"level_{level}"
    (folder.written / name).mkdir(parents=True, exist_ok=True)
    training.train(
        frameworks.read(pruned),
        data,
        folder.workdir / name,
        recipe,
        folder.written / name,
        f"{folder.run} {name}",
    )


def _write(
    workdir: Path, trained: Network, title: str, results: Mapping[str, Any]
) -> None:
    """Writes the trained model, the picture and, last, the results."""
    with written_whole(workdir / "model.keras") as aside:
        frameworks.stripped(trained).save(aside)
    history = read_history(workdir)
    run_figure(workdir / "run.png", title, results["layers"], history)
    write_json(workdir / "results.json", results)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The packages whose versions have changed, as text."""
    return ", ".join(
        f"{package} {before.get(package, 'not installed')}, now {version}"
        for package, version in now.items()
        if before.get(package) != version
    )
