"""Reads `results.json`, and refuses a damaged file."""

import functools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_synflow.files.whole import read_either_json

_PARTS = ("flags", "versions", "prune", "train", "layers")

_AGAIN = "Restore it from a copy, or delete the folder of the run to do the run again"


def read_results(path: Path) -> dict[str, Any]:
    """Reads the results of a run.

    Earlier versions wrote results without a digest. Such a file is accepted if all its
    numbers agree with each other, and a warning is logged. This check cannot notice an
    accuracy that was changed to another possible accuracy.

    Args:
      path: The file `results.json`.

    Returns:
      The content of the file, without the key `digest`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged.
    """
    try:
        results, sealed = read_either_json(path)
    except ValueError as error:
        raise ValueError(f"{error}. {_AGAIN}") from error
    missing = [part for part in _PARTS if part not in results]
    if missing:  # another file of a run may have a digest too
        wrong: str | None = f"it has no {', no '.join(missing)}"
    else:
        wrong = None if sealed else _contradiction(results)
    if wrong is not None:
        raise ValueError(f"{str(path)!r} is damaged: {wrong}. {_AGAIN}")
    if not sealed:
        _warn(path)
    return results


@functools.cache  # once for each file
def _warn(path: Path) -> None:
    logging.getLogger(__name__).warning(
        "%s has no digest: an earlier version wrote it. Its numbers agree with each "
        "other, and are taken as they are",
        path,
    )


def _contradiction(results: Mapping[str, Any]) -> str | None:
    """What is wrong with results that have no digest; None if nothing is found."""
    if "files" in results:  # versions that write this also write a digest
        return "the key 'digest' is missing"
    try:
        checks = _checks(results)
    except KeyError as error:
        return f"the key {error} is missing"
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        return f"a value is of another type than expected ({error})"
    return next((what for what, holds in checks.items() if not holds), None)


def _checks(results: Mapping[str, Any]) -> dict[str, bool]:
    """Error message to condition; an undamaged run fulfils every condition."""
    flags, prune, train = (results[key] for key in ("flags", "prune", "train"))
    layers, versions = results["layers"], results["versions"]
    final, top5 = train["final_accuracy"], train["final_top5_accuracy"]
    kept = sum(layer["kept"] for layer in layers)
    size = sum(layer["size"] for layer in layers)
    emptied = [layer["name"] for layer in layers if not layer["kept"]]
    return {
        "'flags' or 'versions' is no JSON object": isinstance(flags, dict)
        and isinstance(versions, dict),
        "'flags' and 'prune' name other criteria or ratios": all(
            flags.get(key, prune[key]) == prune[key] for key in ("criterion", "ratio")
        ),
        "'flags' and 'train' name other numbers of epochs": flags.get(
            "epochs", train["epochs"]
        )
        == train["epochs"],
        "a time is negative": prune["seconds"] >= 0 and train["seconds"] >= 0,
        "an accuracy is not within 0 and 1, or the best is below the last": (
            0 <= final <= train["best_accuracy"] <= 1 and final <= top5 <= 1
        ),
        "the weights of the layers do not add up to those of the network": (
            (kept, size) == (prune["kept"], prune["prunable"])
        ),
        "a layer's size, shape and density contradict each other": all(
            math.prod(layer["shape"]) == layer["size"]
            and layer["density"] == layer["kept"] / layer["size"]
            for layer in layers
        ),
        "'collapsed_layers' are not the layers without a weight": (
            emptied == prune["collapsed_layers"]
        ),
    }
