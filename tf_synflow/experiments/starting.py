"""Reads a run's initial weights from a file, instead of starting from new ones."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.files.models import load_model
from tf_synflow.network import Network
from tf_synflow.pruning.masking import masked


def start_from(network: Network, path: str | os.PathLike[str]) -> None:
    """Sets all weights of a network to those in a file.

    Args:
      network: The network, not pruned.
      path: A model (.keras, .h5 or the folder of a SavedModel) or its weights
        (.weights.h5); the prefix of a checkpoint that `tf.train.Checkpoint(
        model=model)` wrote; or a checkpoint of a run, such as `checkpoints/epoch_10`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file holds the weights of another network. Then nothing is
        changed.
    """
    path = os.fspath(path)
    prefix = str(Path(path) / "state") if _is_of_a_run(path) else path
    if Path(f"{prefix}.index").is_file():
        found = _from_checkpoint(network, prefix, path)
    elif not Path(path).exists():
        raise FileNotFoundError(
            f"there is no {path!r} to start from. Expected a .keras, .h5 or "
            ".weights.h5 file, the folder of a SavedModel, or a checkpoint"
        )
    elif path.endswith(".weights.h5"):
        found = _from_weights(network, path)
    else:
        found = _values(frameworks.read(load_model(path)))
    _assign(network, found, path)


def _is_of_a_run(path: str) -> bool:
    return (Path(path) / "state.index").is_file()


def _values(network: Network) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in network.weights.items()}


def _from_weights(network: Network, path: str) -> dict[str, np.ndarray]:
    copy = frameworks.stripped(network)
    try:
        copy.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise _other(path, network, str(error)) from error
    return _values(frameworks.read(copy))


def _from_checkpoint(network: Network, prefix: str, path: str) -> dict[str, np.ndarray]:
    """The weights in a checkpoint of a plain model, or of a model with masks.

    A run trains a network whose layers hold masks, so its checkpoints have more
    content.
    """
    for copy in (frameworks.stripped(network), _holding_masks(network)):
        try:
            status = tf.train.Checkpoint(model=copy).read(prefix)
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            said = str(error)
            continue
        return _values(frameworks.read(copy))
    raise _other(path, network, said)


def _holding_masks(network: Network) -> Any:
    """A copy of a network with masks that keep every weight."""
    shapes = {name: network.weights[name].shape for name in network.prunable}
    return masked(
        network, {name: np.ones(shape, bool) for name, shape in shapes.items()}
    )


def _assign(network: Network, found: Mapping[str, np.ndarray], path: str) -> None:
    shapes = {name: tuple(v.shape) for name, v in network.weights.items()}
    there = {name: value.shape for name, value in found.items()}
    if shapes != there:
        names = sorted(
            name for name in {*shapes, *there} if shapes.get(name) != there.get(name)
        )
        name = names[0]
        raise _other(
            path,
            network,
            f"{len(names)} weights differ, {name!r} among them: the network has "
            f"{shapes.get(name, 'none')}, the file {there.get(name, 'none')}",
        )
    for name, value in found.items():
        network.weights[name].assign(value)


def _other(path: str, network: Network, why: Any) -> ValueError:
    return ValueError(
        f"{path!r} does not hold the weights of {network.name!r} ({why}). Give a "
        "file of the same network, for images of the same size and as many classes"
    )
