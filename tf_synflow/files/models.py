"""Saved models: read with plain errors, written whole or not at all."""

import importlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tf_synflow.checks.saved_models import keras_version
from tf_synflow.files.whole import written_whole
from tf_synflow.frameworks import adapter_of


def load_model(
    path: str | os.PathLike[str],
    modules: Collection[str] = (),
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> Any:
    """Reads a saved model of Keras 2 or Keras 3, pruned or not.

    The file says which Keras wrote it, and the model is read with that Keras.

    Use this function for pruned models of Keras 2 with activity regularizers, with
    masks of time steps, or (in `.h5`) with registered layers of your own. Keras with
    tfmot's `prune_scope()` alone loses activity regularizers, and cannot read the other
    models. `keras.models.load_model` of Keras 3 reads pruned models too, once
    `tf_synflow.keras3` is imported.

    Before Keras builds anything, the classes and functions that the file names are
    checked. A file may name layers, initializers and so on of Keras, tfmot and this
    package, operators of TensorFlow that compute, and everything that you registered or
    name here. Nothing else is imported or called. (For a file of Keras 3, the safe mode
    of Keras itself checks the names.) A `.keras` or `.h5` file may take 512 MiB of
    memory, or four times its own size if that is more. The graph in a SavedModel is not
    checked: TensorFlow runs it, and it can read and write files when the model is
    called.

    Args:
      path: A `.keras` or `.h5` file, or the folder of a SavedModel of Keras 2.
      modules: Python modules to import first. They may register your own classes
        (`keras.saving.register_keras_serializable`), or linear parts of your classes. A
        file may name any class or function that is defined in these modules. Defaults
        to none.
      custom_objects: Classes and functions that the file may name, by name. Defaults to
        None.
      safe_mode: Whether to check the file as above. Defaults to True. With False, a
        file can run any code on this machine: use False only for files of your own.

    Returns:
      The model, uncompiled. If it is pruned, its pruned weights stay zero in training,
      as in a model that `prune` returns.

    Raises:
      FileNotFoundError: There is nothing at `path`.
      ModuleNotFoundError: A module cannot be found.
      ValueError: The file holds no Keras model that this version can read, the model
        cannot be pruned, or the file names code or takes memory that is not allowed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no model at {str(path)!r}")
    for module in modules:
        importlib.import_module(module)
    # Each of these modules imports its own Keras.
    if keras_version(path).startswith("3."):
        from tf_synflow.keras3.loading import load
    else:
        from tf_synflow.keras2.loading import load
    return load(path, modules, custom_objects, safe_mode)


def save_model(path: str | os.PathLike[str], model: Any) -> None:
    """Writes a model, whole or not at all.

    Args:
      path: Where to write; nothing may exist there yet. `path` ends in `.keras` or
        `.h5`, or it has no ending, for the folder of a SavedModel.
      model: A Keras model.

    Raises:
      FileExistsError: There is something at `path`.
      FileNotFoundError: The folder of `path` does not exist.
      PermissionError: The folder of `path` cannot be written to.
      ValueError: `path` has another ending, or names a SavedModel and the model is of
        Keras 3.
    """
    path = checked_output(path)
    check_form(path, model)
    with written_whole(path) as aside:
        model.save(aside)


def check_form(path: str | os.PathLike[str], model: Any) -> None:
    """Refuses a file format that a model's Keras cannot write.

    Args:
      path: See `save_model`.
      model: A Keras model.

    Raises:
      ValueError: The format is SavedModel, and the model is of Keras 3.
    """
    if not Path(path).suffix and adapter_of(model).__name__.endswith("keras3"):
        raise ValueError(
            f"Keras 3 saves models as .keras or .h5, got {str(path)!r}; `export` "
            "writes the folder of a SavedModel, which runs without Keras"
        )


def checked_output(
    path: str | os.PathLike[str], endings: Collection[str] = (".keras", ".h5", "")
) -> Path:
    """Refuses a path that a model cannot be written to.

    Args:
      path: Where to write.
      endings: Endings that `path` may have; "" stands for the folder of a SavedModel.

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
