"""Reads saved models of Keras 3, after checks of their content.

Keras 3 itself checks the names in a file: in its safe mode it accepts only its own
modelling classes and functions, and registered ones, and no Python bytecode. This
module checks the rest: whether the file is whole, how much memory it takes, and whether
its layers read other files.
"""

import contextlib
import importlib
import inspect
import math
import threading
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tf_synflow.checks import first_line
from tf_synflow.checks.saved_models import (
    UntrustedFileError,
    allowance,
    check_archive,
    check_weights,
    parsed,
)
from tf_synflow.keras3.constraints import constrain, zero_pruned
from tf_synflow.keras3.imports import keras
from tf_synflow.keras3.reading import held_masks, lay_flat

_WEIGHTS = "model.weights.h5"

_variables_lock = threading.Lock()


def load(
    path: Path,
    modules: Collection[str],
    custom_objects: Mapping[str, Any] | None,
    safe_mode: bool,
) -> Any:
    """Reads a model; see `files.models.load_model`."""
    known = {**_defined(modules), **(custom_objects or {})}
    bounds = contextlib.ExitStack()
    try:
        with bounds:
            if path.suffix == ".keras":
                check_archive(path, safe_mode)
            if safe_mode:
                bounds.enter_context(bounded_variables(_check_contents(path)))
            model = keras.models.load_model(
                path, known, compile=False, safe_mode=safe_mode
            )
        if isinstance(model, keras.Model):
            _zero_pruned(model)
    except UntrustedFileError as error:
        raise ValueError(
            f"{str(path)!r} is not read, because a file from a stranger could do harm "
            f"this way: {error}. If you trust the file, switch all checks off "
            "(safe_mode=False)"
        ) from error
    # Keras, h5py and zipfile each have errors of their own for a broken file.
    except Exception as error:
        raise ValueError(
            f"cannot read a Keras 3 model from {str(path)!r} "
            f"({type(error).__name__}: {first_line(error)}). Expected a whole .keras "
            "or .h5 file, as model.save writes. (In .h5 Keras 3 cannot read back "
            "operations such as x + y: save those models as .keras.) If it has layers "
            "of your own, name the module that registers them (modules=), or the "
            "classes (custom_objects=); if it has a Lambda layer with Python code and "
            "you trust the file, switch all checks off (safe_mode=False)"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"what {str(path)!r} holds is no Keras model but {type(model).__name__}"
        )
    return model


def _zero_pruned(model: Any) -> None:
    """Zeroes pruned weights, which an optimizer may have left nonzero."""
    weights = lay_flat(model).weights
    for name, mask in held_masks(weights).items():
        constrain(name, weights[name], mask)
        shape = tuple(weights[name].shape)
        if np.shape(mask) != shape:
            raise ValueError(
                f"the mask of {name!r} has the shape {np.shape(mask)}, and the weight "
                f"{shape}"
            )
        zero_pruned(weights[name], mask)


def _defined(modules: Collection[str]) -> dict[str, Any]:
    """The classes and functions that are defined in modules which the user names."""
    found = {}
    for name in modules:
        module = importlib.import_module(name)
        for own, value in vars(module).items():
            is_code = inspect.isclass(value) or inspect.isfunction(value)
            if is_code and value.__module__ == name:
                found[own] = value
    return found


def _check_contents(path: Path) -> int:
    """Checks the content of a file; returns how many bytes of memory it may take.

    Raises:
      UntrustedFileError: The file takes more, or one of its layers reads another file.
    """
    size = path.stat().st_size
    allowed = allowance(size)
    # The configuration has the masks too: at most 1.4 bits for the 32 bits of a weight.
    longest = size // 4
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            _check_config(parsed(archive.read("config.json"), longest), allowed)
            with archive.open(_WEIGHTS) as member, h5py.File(member) as file:
                check_weights(file, allowed)
    else:
        with h5py.File(path) as file:
            _check_config(parsed(file.attrs["model_config"], longest), allowed)
            check_weights(file, allowed)
    return allowed


def _check_config(config: Any, allowed: int) -> None:
    size, waiting = 0, [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("vocabulary"), str):
                raise UntrustedFileError(
                    f"a layer reads its vocabulary from the file {item['vocabulary']!r}"
                )
            if "bits" in item and isinstance(item.get("shape"), list):
                size += math.prod(side for side in item["shape"] if side != 0)
                if size > allowed:
                    raise UntrustedFileError(
                        f"its masks would take {size:,} bytes of memory; at most "
                        f"{allowed:,} are allowed"
                    )
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


@contextlib.contextmanager
def bounded_variables(allowed: int) -> Iterator[None]:
    """Raises an error if variables made in the context are too large together.

    Keras has no hook for this. So, inside the context, the constructor of Keras's
    variables counts the bytes of the variables that this thread makes. Only one file is
    read at a time.

    Args:
      allowed: How many bytes the variables may take.

    Raises:
      UntrustedFileError: The next variable would make them larger than `allowed`.
    """
    size, reader = 0, threading.get_ident()
    make = keras.Variable.__init__

    def counted(
        self: Any, initializer: Any, shape: Any = None, *rest: Any, **named: Any
    ) -> None:
        nonlocal size
        sides = shape if shape is not None else getattr(initializer, "shape", ())
        if threading.get_ident() == reader:
            size += 4 * math.prod(side or 0 for side in sides)
        if size > allowed and threading.get_ident() == reader:
            raise UntrustedFileError(
                f"its variables would take {size:,} bytes of memory; at most "
                f"{allowed:,} are allowed"
            )
        make(self, initializer, shape, *rest, **named)

    with _variables_lock:
        keras.Variable.__init__ = counted
        try:
            yield
        finally:
            keras.Variable.__init__ = make
