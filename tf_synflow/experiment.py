"""One run: build, prune, retrain, evaluate, and write what came out."""

import json
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tf_synflow import data as data_lib
from tf_synflow import figures, models, report, training
from tf_synflow._compat import keras
from tf_synflow.files import written_whole
from tf_synflow.mask_files import save_masks
from tf_synflow.policy import PruningPolicy
from tf_synflow.wrapping import apply_masks, strip

_PACKAGES = ("tf_synflow", "tensorflow", "tf_keras", "tensorflow-model-optimization")


def run(
    workdir: Path,
    *,
    model: str,
    dataset: str,
    ratio: float,
    policy: PruningPolicy,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    flags: Mapping[str, Any],
) -> dict[str, Any]:
    """Prunes a new network, trains it, and writes the files of the run.

    Args:
      workdir: Folder to write to; made if need be. It must not hold a run already.
      model: Name of the network; see `models.build`.
      dataset: Name of the data set; see `data.load`.
      ratio: See `PruningPolicy.masks`.
      policy: How to prune.
      epochs: See `training.train`, as the next two.
      batch_size: Images a step.
      learning_rate: At the first step.
      seed: Seeds the weights and the order of the images.
      flags: Written into the results as they are.

    Returns:
      What `results.json` holds.

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
    keras.utils.set_random_seed(seed)
    data = data_lib.load(dataset)
    network = models.build(model, data.input_shape, data.classes)
    start = time.perf_counter()
    masks = policy.masks(network, ratio)
    seconds = time.perf_counter() - start
    layers = report.layer_rows(network, masks)
    workdir.mkdir(parents=True, exist_ok=True)
    save_masks(workdir / "masks.npz", masks)
    pruned = apply_masks(network, masks)
    trained = training.train(
        pruned,
        data,
        workdir,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    with written_whole(workdir / "model.keras") as aside:
        strip(pruned).save(aside)
    results = {
        "flags": dict(flags),
        "versions": versions(),
        "prune": {
            "criterion": policy.criterion,
            "ratio": ratio,
            "prunable": sum(row["size"] for row in layers),
            "kept": sum(row["kept"] for row in layers),
            "seconds": seconds,
            "collapsed_layers": report.collapsed_layers(masks),
        },
        "train": trained,
        "layers": layers,
    }
    title = f"{model} on {dataset}: {policy.criterion}, compression ratio {ratio:g}"
    history = training.read_history(workdir)
    figures.run_figure(workdir / "run.png", title, layers, history)
    with written_whole(workdir / "results.json") as aside:
        aside.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    return results


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
