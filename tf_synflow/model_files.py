"""Saved models: read with plain errors, written whole or not at all."""

import importlib
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tf_synflow._compat import keras, tfmot
from tf_synflow.errors import first_line
from tf_synflow.files import written_whole
from tf_synflow.graph import flatten
from tf_synflow.wrapping import (
    PruneLowMagnitude,
    hold,
    masked_weights,
    zero_pruned,
)


def load_model(path: str | os.PathLike[str], modules: Collection[str] = ()) -> Any:
    """Reads a saved Keras model, pruned or not.

    Use it for pruned models with activity regularizers, Keras masks, or (in `.h5`) with
    registered layers of your own: Keras with tfmot's `prune_scope()` alone loses the
    first and cannot read the others.

    Args:
      path: A `.keras` or `.h5` file, or the folder of a SavedModel.
      modules: Python modules to import before, which register classes of the user's own
        (`keras.saving.register_keras_serializable`) or linear parts of them.

    Returns:
      The model, uncompiled. If it is pruned, its pruned weights stay zero in training,
      as they do in what `prune` returns.

    Raises:
      FileNotFoundError: There is nothing at `path`.
      ModuleNotFoundError: A module cannot be found.
      ValueError: It is no Keras model that this version can read, or one that cannot be
        pruned.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no model at {str(path)!r}")
    for module in modules:
        importlib.import_module(module)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # Keras reads the weights in pieces, past the checksum.
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{damaged} is damaged")
        with (
            tfmot.sparsity.keras.prune_scope(),
            keras.saving.custom_object_scope({"PruneLowMagnitude": PruneLowMagnitude}),
        ):
            model = keras.models.load_model(path, compile=False)
    # Keras, h5py, zipfile and protobuf each have errors of their own for a broken file.
    except Exception as error:
        raise ValueError(
            f"cannot read a tf_keras model from {str(path)!r} "
            f"({type(error).__name__}: {first_line(error)}). Expected a whole "
            ".keras or .h5 file, or the folder of a SavedModel, as model.save of "
            "tf_keras writes. If it has layers of your own, name the module that "
            "registers them"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"what {str(path)!r} holds is no Keras model but {type(model).__name__}: "
            "a SavedModel that Keras did not write cannot be pruned"
        )
    graph = flatten(model)
    hold(graph)
    for weight, mask in masked_weights(graph).values():
        zero_pruned(weight, mask)  # tfmot alone saves what an update left there
    return model


def save_model(path: str | os.PathLike[str], model: Any) -> None:
    """Writes a model, whole or not at all.

    Args:
      path: Ends in `.keras` or `.h5`; or has no ending, for the folder of a SavedModel.
        It must not exist yet.
      model: A Keras model.

    Raises:
      FileExistsError: There is something at `path`.
      FileNotFoundError: Its folder does not exist.
      ValueError: It has another ending.
    """
    path = checked_output(path)
    with written_whole(path) as aside:
        model.save(aside)


def checked_output(
    path: str | os.PathLike[str], endings: Collection[str] = (".keras", ".h5", "")
) -> Path:
    """Refuses a path that a model cannot be written to.

    Args:
      path: Where to.
      endings: Which it may have; "" is the folder of a SavedModel.

    Raises:
      ValueError, FileExistsError, FileNotFoundError, PermissionError: See `save_model`.
    """
    path = Path(path)
    if path.suffix not in endings:
        named = " or ".join(filter(None, endings))
        raise ValueError(
            f"a model's name ends in {named}, or has no ending for a SavedModel, "
            f"got {str(path)!r}"
        )
    if os.path.lexists(path):
        raise FileExistsError(
            f"{str(path)!r} exists already and is left alone; choose another name, or "
            "delete it first"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not "
            "exist; create it first"
        )
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"cannot write {str(path)!r}: no permission to write into its folder"
        )
    return path
