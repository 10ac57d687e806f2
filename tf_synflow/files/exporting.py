"""Writes models as files that run without Keras: SavedModel, TFLite and ONNX."""

import dataclasses
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.checks import first_line
from tf_synflow.files import onnx, tflite
from tf_synflow.files.comparing import Comparison
from tf_synflow.files.models import checked_output
from tf_synflow.files.whole import written_whole
from tf_synflow.network import Network
from tf_synflow.network.copies import Servable


class Exported(NamedTuple):
    """What `export` wrote; prints as a few lines.

    Attributes:
      path: The file, or the folder of the SavedModel.
      format: "tflite", "saved_model" or "onnx".
      parameters: Number of parameters of the model.
      nonzero: Number of parameters that are not zero.
      bytes: Size on disk.
      dense_bytes: Size without sparse encoding. If the network is pruned, but not
        shrunk, this is also the size that the file of the dense network has.
      compressed_bytes: Size after compression, as by zip or gzip.
      sparse: Whether weights are stored in TFLite's sparse encoding. This is so only if
        the file is smaller with it.
      difference: Largest absolute difference to the outputs of Keras, where they are
        finite.
      largest_output: Largest absolute output of Keras that is finite.
      note: Why weights are stored dense, although a sparse file would be smaller;
        usually empty.
    """

    path: Path
    format: str
    parameters: int
    nonzero: int
    bytes: int
    dense_bytes: int
    compressed_bytes: int
    sparse: bool
    difference: float
    largest_output: float
    note: str = ""

    def __str__(self) -> str:
        """The result in a few lines."""
        return (
            f"{self.path} ({self.format}): {self.nonzero:,} of {self.parameters:,} "
            f"parameters are not zero\n"
            f"{self.bytes:,} bytes"
            + (f", of {self.dense_bytes:,} without sparse encoding" * self.sparse)
            + f"; {self.compressed_bytes:,} compressed\n"
            f"outputs differ from those of Keras by {self.difference:.2g} at most; the "
            f"largest is {self.largest_output:.2g}"
            + (f"\n{self.note}" if self.note else "")
        )


def export(
    model: Any,
    path: str | os.PathLike[str],
    data: np.ndarray | Sequence[np.ndarray] | None = None,
) -> Exported:
    """Writes a model as a file that runs without Keras, and checks it by running it.

    Each output must be equal to that of Keras, up to 1e-4 of its variation over the
    data, or up to the effect of rounding. It must be infinite or NaN exactly where the
    output of Keras is. If only TFLite's sparse encoding fails this check, the dense
    encoding is written.

    Args:
      model: A built Sequential or functional Keras model: pruned, stripped or plain. It
        is not changed. Pruning wrappers are left out of the file.
      path: Where to write; nothing may exist there yet. The ending decides on the
        format. `.tflite`: TFLite, with sparse encoding if the file is smaller with it.
        `.onnx`: ONNX, for models of Keras 3 on TensorFlow or PyTorch; this needs the
        packages of the extra "onnx". No ending: the folder of a SavedModel, whose
        signature "serving_default" takes the inputs by name and gives `output_0`,
        `output_1` ...
      data: Real inputs to check the file with: an array `(n, ...)`, or one array for
        each input. Defaults to 8 samples of seeded, uniform noise in [0, 1).

    Returns:
      The sizes, and the largest difference to Keras in this check.

    Raises:
      TypeError: `model` is no Keras model.
      ModuleNotFoundError: A package for ONNX is missing.
      ValueError: `path` has another ending; `data` does not fit; noise does not fit,
        and `data` is not given; the format cannot express the model; tfmot has
        quantised the model; the model does not compute in float32; `export` is called
        inside a strategy's scope; or the file does not compute the same as Keras.
        Then nothing is written.
      FileExistsError: There is something at `path`.
      FileNotFoundError: The folder of `path` does not exist.
      PermissionError: The folder of `path` cannot be written to.
    """
    if tf.distribute.has_strategy():
        raise ValueError("call export outside of the strategy's scope")
    _check_not_quantised(model)
    network = frameworks.read(model)
    plain = frameworks.stripped(network)
    path = checked_output(path, (".tflite", ".onnx", ""))
    if path.suffix == ".onnx":
        onnx.check(model)
    elif path.suffix:
        _check_float32(network)
    adapter = frameworks.adapter_of(plain)
    served = adapter.servable(dataclasses.replace(network, model=plain))
    inputs = _inputs(served, data)
    check = Comparison(plain, list(inputs.values()))
    with written_whole(path) as aside:
        if path.suffix == ".onnx":
            onnx.write(plain, aside)
            found = check(path, onnx.run(aside, inputs))
            written = _Written(found, _size(aside))
        elif path.suffix:
            written = _write_tflite(served, path, aside, inputs, check)
        else:
            _write_saved_model(served, aside)
            found = check(path, _run_saved_model(aside, inputs))
            written = _Written(found, _size(aside))
        weights = [variable.numpy() for variable in plain.weights]
        return Exported(
            path,
            path.suffix[1:] or "saved_model",
            sum(weight.size for weight in weights),
            sum(int(np.count_nonzero(weight)) for weight in weights),
            _size(aside),
            written.dense_bytes,
            _compressed_size(aside),
            written.is_sparse,
            *written.found,
            written.note,
        )


class _Written(NamedTuple):
    """A file that was written and checked.

    Attributes:
      found: The result of the `Comparison`: largest difference and largest output.
      dense_bytes: Size of the file with dense weights.
      is_sparse: Whether the weights are stored sparse. Defaults to False.
      note: A note on the file for the user. Defaults to "".
    """

    found: tuple[float, float]
    dense_bytes: int
    is_sparse: bool = False
    note: str = ""


def _write_tflite(
    served: Servable,
    path: Path,
    aside: Path,
    inputs: dict[str, np.ndarray],
    check: Comparison,
) -> _Written:
    """Writes a TFLite file: the sparse one if smaller and correct, else the dense one.

    Args:
      served: The model to write.
      path: Name of the file in error messages.
      aside: Where to write the file.
      inputs: Name of each input to an array, to run the file on.
      check: The check that the outputs of the file must pass.
    """
    folder = aside.with_name("saved_model")
    _write_saved_model(served, folder)
    sparse, dense = tflite.convert(folder)
    note, chosen = "", sparse if len(sparse) < len(dense) else dense
    try:
        found = check(path, tflite.run(chosen, inputs))
    except ValueError as error:
        if chosen is dense:
            raise
        found = check(path, tflite.run(dense, inputs))
        chosen = dense
        note = (
            "The weights are stored dense. TFLite's sparse encoding is smaller, but "
            f"computes wrong outputs here ({first_line(error)})"
        )
    aside.write_bytes(chosen)
    return _Written(found, len(dense), chosen is sparse, note)


def _check_not_quantised(model: Any) -> None:
    """Refuses a model with layers that tfmot has quantised.

    Such layers cannot be copied, and only TFLite understands them.
    """
    parts: Iterable[Any] = getattr(model, "_flatten_layers", tuple)()
    names = [
        part.name
        for part in parts
        if type(part).__module__.startswith("tensorflow_model_optimization.")
        and type(part).__name__.startswith("Quantize")
        and type(part).__name__ != "QuantizeAnnotate"
    ]
    if names:
        raise ValueError(
            f"model {model.name!r} was quantised by tfmot ({names[0]!r} and "
            f"{len(names) - 1} more layers). export writes floating-point models only: "
            "it could not compare a file in 8 bits with Keras. Export the model as it "
            "was before quantize_model. Or convert this one yourself, with "
            "converter = tf.lite.TFLiteConverter.from_keras_model(model), "
            "converter.optimizations = [tf.lite.Optimize.DEFAULT] and "
            "converter.convert()"
        )


def _check_float32(network: Network) -> None:
    kinds = {call.layer.compute_dtype for call in network.calls if call.weights}
    if kinds - {"float32"}:
        raise ValueError(
            f"TFLite takes models that compute in float32, got one that computes in "
            f"{sorted(kinds)}. Build it again in float32 and set_weights, or export a "
            "SavedModel: a path without an ending"
        )


def _input_names(served: Servable) -> list[str]:
    """The names of the inputs as a signature spells them."""
    names = [re.sub(r"\W", "_", name) for name in served.names]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the names of the inputs, {served.names}, are not distinct in a "
            f"signature, where they are {names}: rename the inputs"
        )
    return names


def _inputs(served: Servable, data: Any) -> dict[str, np.ndarray]:
    """Name of each input to its array: the given data, checked, or noise."""
    specs = served.specs
    shapes = [tuple(spec.shape) for spec in specs]
    if data is None:
        if any(None in shape[1:] for shape in shapes) or not all(
            spec.dtype.is_floating for spec in specs
        ):
            raise ValueError(
                f"the inputs of the model are {shapes} of "
                f"{[spec.dtype.name for spec in specs]}, and noise does not fit them: "
                "give real inputs to check the file with, as data="
            )
        generator = np.random.default_rng(0)
        data = [generator.random((shape[0] or 8, *shape[1:])) for shape in shapes]
    elif hasattr(data, "shape"):
        data = [data]
    elif not isinstance(data, (list, tuple)):
        raise ValueError(f"data must be an array or a list, got {type(data).__name__}")
    arrays = [
        np.asarray(x, spec.dtype.as_numpy_dtype)
        for x, spec in zip(data, specs, strict=False)
    ]
    fits = len(data) == len(specs) and all(
        x.ndim == len(shape)
        and len(x) == len(arrays[0]) > 0
        and all(want in (None, have) for want, have in zip(shape, x.shape, strict=True))
        for x, shape in zip(arrays, shapes, strict=True)
    )
    if not fits:
        raise ValueError(
            f"data must be one array for each input, of shapes {shapes}, and of the "
            f"same length; got {[np.shape(x) for x in data]}"
        )
    return dict(zip(_input_names(served), arrays, strict=True))


def _run_saved_model(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs of a SavedModel, by name."""
    loaded = tf.saved_model.load(path)
    tensors = {name: tf.constant(array) for name, array in inputs.items()}
    return loaded.signatures["serving_default"](**tensors)


def _write_saved_model(served: Servable, path: Path) -> None:
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name)
        for spec, name in zip(served.specs, _input_names(served), strict=True)
    ]

    @tf.function(input_signature=specs)
    def serve(*inputs: Any) -> dict[str, Any]:
        outputs = served.function(list(inputs))
        return {f"output_{i}": y for i, y in enumerate(outputs)}

    # Only the variables: if the model were here, Keras would also write its structure.
    module = tf.Module()
    module.weights = served.variables
    module.serve = serve
    try:
        tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {path.name}: {error.message}") from error
    except AssertionError as error:
        raise ValueError(
            f"this model cannot be exported ({first_line(error)}): one of its layers "
            "holds a table or another resource besides its weights. Write it with "
            "Keras's model.save(path)"
        ) from error


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _compressed_size(path: Path) -> int:
    size = 0
    for file in _files(path):
        deflate = zlib.compressobj()
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                size += len(deflate.compress(block))
        size += len(deflate.flush())
    return size
