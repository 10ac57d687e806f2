"""Reads saved models of tf_keras, after checks of the names in them."""

import contextlib
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5py

from tf_synflow.checks import first_line
from tf_synflow.checks.saved_models import (
    UntrustedFileError,
    allowance,
    check_archive,
    check_weights,
    parsed,
)
from tf_synflow.keras2.attention import ScaledAttention
from tf_synflow.keras2.bounds import bounded_variables
from tf_synflow.keras2.constraints import KeepPruned, KeepPrunedParts, zero_pruned
from tf_synflow.keras2.holding import hold
from tf_synflow.keras2.imports import SavedMetadata, keras, tfmot
from tf_synflow.keras2.reading import lay_flat, mask_variables
from tf_synflow.keras2.trust import Trust, check_config
from tf_synflow.keras2.wrapping import PruneLowMagnitude

_WEIGHTS = "model.weights.h5"

# In .h5 files, these classes are named without their package.
_OWN = {
    kind.__name__: kind
    for kind in (PruneLowMagnitude, KeepPruned, KeepPrunedParts, ScaledAttention)
}


def load(
    path: Path,
    modules: Collection[str],
    custom_objects: Mapping[str, Any] | None,
    safe_mode: bool,
) -> Any:
    """Reads a model; see `files.models.load_model`."""
    custom_objects = dict(custom_objects or {})
    bounds = contextlib.ExitStack()
    try:
        with (
            tfmot.sparsity.keras.prune_scope(),
            keras.saving.custom_object_scope(_OWN),
            bounds,
        ):
            if path.suffix == ".keras":
                check_archive(path, safe_mode)
            if safe_mode:
                allowed = _check_trust(path, custom_objects, modules)
                if allowed is not None:
                    bounds.enter_context(bounded_variables(allowed))
            model = keras.models.load_model(
                path, custom_objects, compile=False, safe_mode=safe_mode
            )
    except UntrustedFileError as error:
        raise ValueError(
            f"{str(path)!r} is not read, because a file from a stranger could do harm "
            f"this way: {error}. If you trust the file, name its classes and functions "
            "(custom_objects=), name the module that registers them (modules=), or "
            "switch all checks off (safe_mode=False). Expected a model of layers that "
            "Keras, tfmot or tf_synflow have"
        ) from error
    # Keras, h5py, zipfile and protobuf each have errors of their own for a broken file.
    except Exception as error:
        raise ValueError(
            f"cannot read a Keras model from {str(path)!r} "
            f"({type(error).__name__}: {first_line(error)}). Expected a whole "
            ".keras or .h5 file as model.save of Keras writes, or the folder of a "
            "SavedModel of Keras 2. If it has layers of your own, name the module that "
            "registers them"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"what {str(path)!r} holds is no Keras model but {type(model).__name__}: "
            "a SavedModel that Keras did not write cannot be pruned"
        )
    calls = lay_flat(model).calls
    hold(calls)
    for weight, mask in mask_variables(calls).values():
        zero_pruned(weight, mask)  # tfmot alone may have saved other values
    return model


def _check_trust(
    path: Path, custom_objects: Mapping[str, Any], modules: Collection[str]
) -> int | None:
    """Checks a file; returns how many bytes of memory it may take, or None if unknown.

    Raises:
      UntrustedFileError: The file names code or takes memory that is not allowed.
    """
    if path.is_dir():
        trust = Trust(custom_objects, modules, by_module=False)
        if not (path / "keras_metadata.pb").is_file():
            raise FileNotFoundError(
                "keras_metadata.pb is missing: Keras did not write this folder"
            )
        metadata = SavedMetadata()
        metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
        for node in metadata.nodes:
            check_config(parsed(node.metadata), trust)
        return None
    allowed = allowance(path.stat().st_size)
    # The configuration may have masks too: at most 1.4 bits for the 32 bits of a
    # weight.
    longest = path.stat().st_size // 4
    if path.suffix == ".keras":
        trust = Trust(custom_objects, modules, by_module=True)
        with zipfile.ZipFile(path) as archive:
            config = parsed(archive.read("config.json"), longest)
            # Keras does not read compile_config either: the model is not compiled.
            check_config({**config, "compile_config": None}, trust)
            with archive.open(_WEIGHTS) as member, h5py.File(member) as file:
                check_weights(file, allowed)
    else:
        trust = Trust(custom_objects, modules, by_module=False)
        with h5py.File(path) as file:
            check_config(parsed(file.attrs["model_config"], longest), trust)
            check_weights(file, allowed)
    return allowed
