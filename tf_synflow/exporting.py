"""Models as files that run without Keras: SavedModel and TFLite."""

import contextlib
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_synflow._compat import keras, tf
from tf_synflow.errors import first_line
from tf_synflow.files import written_whole
from tf_synflow.model_files import checked_output
from tf_synflow.wrapping import strip

# Largest difference to Keras, over the largest output. Float32 kernels that sum in
# another order differ by 1e-6 or so; a wrong weight by far more than this.
TOLERANCE = 1e-4


class Exported(NamedTuple):
    """What `export` wrote; prints as a few lines.

    Attributes:
      path: The file, or the folder of the SavedModel.
      format: "tflite" or "saved_model".
      parameters: Parameters of the model.
      nonzero: Those that are not zero.
      bytes: Size on disk.
      dense_bytes: Size that it has without sparse encoding; for a pruned network (not
        a shrunk one) also that of the network before.
      compressed_bytes: Size of what is on disk once it is deflated, as by zip or gzip.
      sparse: Whether weights are stored in TFLite's sparse encoding: only where that is
        smaller.
      difference: Largest absolute difference to the outputs of Keras.
      largest_output: Largest absolute output of Keras.
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

    def __str__(self) -> str:
        """A few lines."""
        return (
            f"{self.path} ({self.format}): {self.nonzero:,} of {self.parameters:,} "
            f"parameters are not zero\n"
            f"{self.bytes:,} bytes"
            + (f", of {self.dense_bytes:,} without sparse encoding" * self.sparse)
            + f"; {self.compressed_bytes:,} compressed\n"
            f"outputs differ from those of Keras by {self.difference:.2g} at most; the "
            f"largest is {self.largest_output:.2g}"
        )


def export(
    model: Any,
    path: str | os.PathLike[str],
    data: np.ndarray | Sequence[np.ndarray] | None = None,
) -> Exported:
    """Writes a model as a file that runs without Keras, and checks it by running it.

    Args:
      model: A built Sequential or functional tf_keras model: pruned, stripped or plain.
        It is not changed; pruning wrappers are stripped.
      path: Ends in `.tflite`: for TFLite, with sparse encoding where that is smaller.
        Or has no ending: folder of a SavedModel, whose signature "serving_default"
        takes the inputs by name and gives `output_0`, `output_1` ... It must not exist.
      data: Real inputs to check the file with: an array `(n, ...)`, or one for each
        input. Defaults to 8 of uniform noise in [0, 1), seeded.

    Returns:
      Sizes, and the largest difference to Keras that was seen.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: The ending is another one, `data` does not fit or is needed, TFLite
        cannot express the model, or the file does not compute what Keras does. Nothing
        is written then.
      FileExistsError: There is something at `path`.
      FileNotFoundError: Its folder does not exist.
    """
    if tf.distribute.has_strategy():
        raise ValueError("call export outside of the strategy's scope")
    plain = strip(model)
    path = checked_output(path, (".tflite", ""))
    if path.suffix:
        _check_float32(plain)
    inputs = _inputs(plain, data)
    tensors = [tf.constant(x) for x in inputs.values()]
    expected = [y.numpy() for y in _outputs(plain, tensors)]
    with written_whole(path) as aside:
        if path.suffix:
            dense, sparse = _write_tflite(plain, aside)
            found = _run_tflite(aside, inputs)
        else:
            _write_saved_model(plain, aside)
            dense, sparse = _size(aside), False
            loaded = tf.saved_model.load(aside)
            run = loaded.signatures["serving_default"]
            found = run(**{name: tf.constant(x) for name, x in inputs.items()})
        outputs = [np.asarray(found[f"output_{i}"]) for i in range(len(expected))]
        difference, largest = _compare(path, outputs, expected)
        weights = [variable.numpy() for variable in plain.weights]
        return Exported(
            path,
            "tflite" if path.suffix else "saved_model",
            sum(weight.size for weight in weights),
            sum(int(np.count_nonzero(weight)) for weight in weights),
            _size(aside),
            dense,
            _compressed_size(aside),
            sparse,
            difference,
            largest,
        )


def _check_float32(model: Any) -> None:
    parts = [part for part in model._flatten_layers() if part.weights]
    kinds = {p.compute_dtype for p in parts if not isinstance(p, keras.Model)}
    if kinds - {"float32"}:
        raise ValueError(
            f"TFLite takes models that compute in float32, and this one computes in "
            f"{sorted(kinds)}. Build it anew in float32 and set_weights, or export a "
            "SavedModel: a path without an ending"
        )


def _input_names(model: Any) -> list[str]:
    """As a signature spells them."""
    names = [re.sub(r"\W", "_", name) for name in model.input_names]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the inputs {model.input_names} would all be called {names[0]!r} or such "
            "in a signature: rename them"
        )
    return names


def _inputs(model: Any, data: Any) -> dict[str, np.ndarray]:
    """Input name to array, checked or made up."""
    specs = model.inputs
    shapes = [tuple(spec.shape) for spec in specs]
    if data is None:
        if any(None in shape[1:] for shape in shapes) or not all(
            spec.dtype.is_floating for spec in specs
        ):
            raise ValueError(
                f"the inputs of the model are {shapes} of "
                f"{[spec.dtype.name for spec in specs]}, for which nothing can be made "
                "up: give real inputs to check the file with, as data="
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
    return dict(zip(_input_names(model), arrays, strict=True))


def _outputs(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs in inference mode, in a flat list."""
    arranged = tf.nest.pack_sequence_as(model.input, inputs)
    return tf.nest.flatten(model(arranged, training=False))


def _write_saved_model(model: Any, path: Path) -> None:
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name)
        for spec, name in zip(model.inputs, _input_names(model), strict=True)
    ]

    @tf.function(input_signature=specs)
    def serve(*inputs: Any) -> dict[str, Any]:
        return {f"output_{i}": y for i, y in enumerate(_outputs(model, inputs))}

    # The variables alone: with the model, Keras would write down its own structure.
    module = tf.Module()
    module.weights = list(model.weights)
    module.serve = serve
    try:
        tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {path.name}: {error.message}") from error
    except AssertionError as error:
        raise ValueError(
            f"this model cannot be exported ({first_line(error)}): a layer of it "
            "has a table or something else beside its weights. model.save(path) of "
            "Keras can write it"
        ) from error


def _write_tflite(model: Any, path: Path) -> tuple[int, bool]:
    """Writes the smaller encoding; gives the size of the dense one, and which it is."""
    folder = path.with_name("saved_model")
    _write_saved_model(model, folder)
    dense = _converted(folder, [])
    sparse = _converted(folder, [tf.lite.Optimize.EXPERIMENTAL_SPARSITY])
    path.write_bytes(min(sparse, dense, key=len))
    return len(dense), len(sparse) < len(dense)


def _converted(folder: Path, optimizations: list) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = optimizations
    with _explained():
        return converter.convert()


def _run_tflite(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with warnings.catch_warnings(), _explained():
        # TensorFlow announces that its interpreter moves to another package.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(str(path))
        return interpreter.get_signature_runner("serving_default")(**inputs)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Says what can be done about an operation that TFLite does not have, or breaks."""
    try:
        yield
    # The converter has a class of its own for errors, the interpreter several.
    except Exception as error:
        raise ValueError(
            f"TFLite cannot express this model ({type(error).__name__}: "
            f"{first_line(error)}). A path without an ending writes a SavedModel, "
            "which can hold far more"
        ) from error


def _compare(
    path: Path, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Largest difference, and largest output; refuses a file that is wrong."""
    difference = largest = 0.0
    for have, want in zip(outputs, expected, strict=True):
        have, want = have.astype("float64"), want.astype("float64")
        off = float(np.max(np.abs(have - want), initial=0))
        scale = float(np.max(np.abs(want), initial=0))
        if not off <= TOLERANCE * scale:  # NaN is refused too
            raise ValueError(
                f"{path.name} would not compute what Keras does: an output differs by "
                f"{off:.3g} where the largest is {scale:.3g}; at most {TOLERANCE:g} of "
                "that is allowed. It was not written"
            )
        difference, largest = max(difference, off), max(largest, scale)
    return difference, largest


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
