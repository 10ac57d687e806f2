"""Checks the configuration of a saved model before Keras builds the model.

Keras 2 imports any module that the configuration of a `.keras` file names, and takes
any function from it by name: `os.system` as an activation, `exec` as an initializer.
Its safe mode refuses only Python bytecode in a `.keras` file; `.h5` files and
SavedModels have no safe mode. So everything that a configuration names has to be a
class or function of one of three kinds: it computes, and comes from Keras, tfmot or
this package; or the user registered it; or the user names it.
"""

import dataclasses
from collections.abc import Collection, Mapping
from types import FunctionType
from typing import Any

import tensorflow as tf
from tensorflow.python.util import tf_decorator, tf_export

from tf_synflow.checks.saved_models import UntrustedFileError
from tf_synflow.keras2.imports import keras, keras_lookup

_PACKAGES = ("tf_keras", "tensorflow_model_optimization", "tf_synflow")

# TensorFlow's own initializers, which some networks of keras.applications use.
_MODULES = ("tensorflow.python.ops.init_ops", "tensorflow.python.ops.init_ops_v2")

# The modules of Keras with functions that a layer or a loss may name.
_FUNCTIONS = (
    "activations",
    "constraints",
    "initializers",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
)

# The modules of TensorFlow with operators that a layer may stand for. Operators that
# read, write or download files, print to a file, or call Python are in other modules.
_OPERATORS = {
    *("array_ops", "array_ops_stack", "bitwise_ops", "clip_ops", "image_ops_impl"),
    *("linalg_ops", "manip_ops", "math_ops", "nn_impl", "nn_ops", "random_ops"),
    *("sort_ops", "special_math_ops", "string_ops", "tensor_getitem_override"),
    *("gen_array_ops", "gen_bitwise_ops", "gen_image_ops", "gen_linalg_ops"),
    *("gen_manip_ops", "gen_math_ops", "gen_nn_ops", "gen_random_ops"),
    *("gen_string_ops", "linalg_impl", "fft_ops", "spectral_ops", "window_ops"),
    *("stateless_random_ops", "weak_tensor_ops", "embedding_ops", "sparse_ops"),
}

# Layers of Keras that take code, or any method or operator of TensorFlow, from a file.
_RUNS_ANYTHING = {"TensorFlowOpLayer", "ClassMethod", "InstanceMethod"}

_OPERATOR_LAYERS = {"TFOpLambda", "SlicingOpLambda"}

_VALUES = {"__tensor__", "__numpy__", "__bytes__"}


@dataclasses.dataclass(frozen=True)
class Trust:
    """What the user vouches for, and how a file format looks up names.

    Attributes:
      custom_objects: Classes and functions by name.
      modules: Names of Python modules; the modules inside a package count too.
      by_module: Whether Keras imports the module that an entry names, as for `.keras`.
        For older formats, Keras looks up names among its own and registered classes and
        functions.
    """

    custom_objects: Mapping[str, Any]
    modules: Collection[str]
    by_module: bool

    def knows(self, name: Any) -> bool:
        """Whether the user registered or gave an object of this name."""
        return isinstance(name, str) and (
            name in self.custom_objects
            or keras.saving.get_registered_object(name) is not None
        )

    def vouches_for(self, module: str) -> bool:
        """Whether the user named a module, or a package that contains the module."""
        return any(module == m or module.startswith(f"{m}.") for m in self.modules)


def check_config(config: Any, trust: Trust) -> None:
    """Refuses the configuration of a model if it names anything that could run code.

    Args:
      config: The parsed JSON.
      trust: What the user vouches for.

    Raises:
      UntrustedFileError: The configuration names something that does not only compute.
    """
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            _check_entry(item, trust)
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _check_entry(item: dict[str, Any], trust: Trust) -> None:
    kind = item.get("class_name")
    words = [kind, *(item.get(x) for x in ("spec_name", "registered_name", "module"))]
    if kind == "__lambda__" or any(
        key.endswith("_type") and value == "lambda" for key, value in item.items()
    ):
        raise UntrustedFileError("it has Python bytecode, of a lambda or a function")
    if "class_name" not in item:
        return
    if not all(word is None or isinstance(word, str) for word in words):
        raise UntrustedFileError(f"Keras writes no entry such as {words}")
    if kind in _VALUES:
        return
    if kind == "function":
        _check_function(item, trust)
    elif not trust.by_module and "config" not in item:
        return  # a value, as the older formats write it
    else:
        _check_class(item, trust)


def _unknown(name: Any, module: Any) -> UntrustedFileError:
    return UntrustedFileError(
        f"it names {name!r}"
        + (f" of the module {module!r}" if module else ", which nobody registered")
    )


def _check_function(item: dict[str, Any], trust: Trust) -> None:
    module, name, alias = (item.get(x) for x in ("module", "config", "registered_name"))
    if trust.knows(name):
        return
    # Keras may look up either name. (It may write "function" as the second one.)
    for either in (name, name if alias in (None, "function") else alias):
        if not (isinstance(either, str) and either.isidentifier() and module):
            raise _unknown(either, module)
        if not (_keras_has(module, either) or _defined(module, either, item, trust)):
            raise _unknown(either, module)


def _keras_has(module: str, function: str) -> bool:
    """Whether a function is a public function of a Keras module in `_FUNCTIONS`."""
    own = module.removeprefix("tf_").removeprefix("keras.")
    parts = [part for part in _FUNCTIONS if module == "builtins" or part == own]
    return function not in ("get", "serialize", "deserialize") and any(
        callable(getattr(getattr(keras, part), function, None)) for part in parts
    )


def _defined(module: str, function: str, item: dict[str, Any], trust: Trust) -> bool:
    """Whether a function is defined in a module that the user vouches for."""
    if not trust.vouches_for(module):
        return False
    found = keras_lookup(function, None, module, "function", item)
    return isinstance(found, FunctionType) and found.__module__ == module


def _check_class(item: dict[str, Any], trust: Trust) -> None:
    found = _class(item, trust)
    name, config = item["class_name"], item.get("config")
    if name in trust.custom_objects or not isinstance(config, dict):
        return
    kinds = {name}  # a class of Keras, known by its name only
    if found is not None:
        kinds = {k.__name__ for k in found.__mro__ if k.__module__[:9] == "tf_keras."}
    if "Lambda" in kinds and not _known_function(config.get("function"), trust):
        raise UntrustedFileError(f"its layer {config.get('name')!r} is a Lambda")
    if kinds & _RUNS_ANYTHING:
        raise UntrustedFileError(f"it has a layer of the kind {name}")
    if kinds & _OPERATOR_LAYERS:
        _check_operator(config.get("function"))
    if isinstance(config.get("vocabulary"), str):
        raise UntrustedFileError(
            f"a layer reads its vocabulary from the file {config['vocabulary']!r}"
        )


def _known_function(function: Any, trust: Trust) -> bool:
    """Whether the user vouches for a Lambda's function; Keras's own do not count."""
    if not isinstance(function, dict):
        return trust.knows(function)
    module = function.get("module")
    return function.get("class_name") == "function" and (
        trust.knows(function.get("config"))
        or (isinstance(module, str) and trust.vouches_for(module))
    )


def _class(item: dict[str, Any], trust: Trust) -> type | None:
    """The class that Keras will use; None if Keras finds its own class by the name."""
    spec = item["class_name"] == "__typespec__"
    name = item.get("spec_name") if spec else item["class_name"]
    known = item.get("registered_name", name) if trust.by_module else name
    if trust.knows(known):
        found = trust.custom_objects.get(known)
        found = found or keras.saving.get_registered_object(known)
        return found if isinstance(found, type) else None
    module = item.get("module") if trust.by_module else None
    # A dot in a name would reach objects that the module has imported. If no module is
    # given, Keras also finds functions by name; names of classes are capitalised.
    if not name or not name.isidentifier() or not (module or name[0].isupper()):
        raise _unknown(name, module)
    if module is None:
        return None
    package = module.partition(".")[0]
    package = "tf_keras" if package == "keras" else package
    if not (
        trust.vouches_for(module)
        or package in _PACKAGES
        or module in _MODULES
        or (spec and module.startswith("tensorflow.python."))
    ):
        raise _unknown(name, module)
    try:
        found = keras_lookup(name, known, module, "class", item)
    except TypeError:
        return None  # there is none; Keras will raise an error
    own = getattr(found, "__module__", "")
    if not isinstance(found, type) or not (
        own.partition(".")[0] in _PACKAGES
        or (own == module and (module in _MODULES or trust.vouches_for(module)))
        or (spec and issubclass(found, tf.TypeSpec))
    ):
        raise _unknown(name, module)
    return found


def _check_operator(symbol: Any) -> None:
    found = _unwrapped_symbol(symbol) if isinstance(symbol, str) else None
    module = getattr(found, "__module__", "")
    path = module.split(".")
    if module in ("tf_keras.src.backend", "tf_keras.src.activations") or (
        path[:3] == ["tensorflow", "python", "ops"]
        and (path[-1] in _OPERATORS or path[3:4] == ["ragged"])
    ):
        return
    raise UntrustedFileError(f"a layer of it calls TensorFlow's {symbol!r}")


def _unwrapped_symbol(name: str) -> Any:
    """The object behind a public name of TensorFlow or Keras, without decorators.

    Args:
      name: For example "math.add" or "keras.backend.mean".

    Returns:
      A function or class; None if there is none.
    """
    found = tf_export.get_symbol_from_name(name)
    return None if found is None else tf_decorator.unwrap(found)[1]
