"""Models as files that run without Keras: SavedModel and TFLite."""

import contextlib
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from tf_synflow import frameworks
from tf_synflow.checks import first_line
from tf_synflow.files.models import checked_output
from tf_synflow.files.whole import written_whole
from tf_synflow.network import Network

# Largest difference to Keras, over how much an output varies from sample to sample.
# Float32 kernels that sum in another order differ by 1e-6 or so; a wrong weight by far
# more than this.
TOLERANCE = 1e-4

# Where outputs vary by little beside what they are summed from, rounding is larger than
# that. What rounding does is measured: inputs and weights are changed by one unit in
# the last place, at random, and a file may differ by this many times the effect.
ROUNDINGS = 16


_FULLY_CONNECTED, _DENSIFY = 9, 124  # numbers of TFLite's operators


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
      difference: Largest absolute difference to the outputs of Keras, where they are
        finite.
      largest_output: Largest absolute output of Keras that is finite.
      note: Why weights are not stored sparse though that is smaller; usually empty.
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
        """A few lines."""
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

    Each output has to be that of Keras, to 1e-4 of how much it varies over the data or
    to what rounding does to it, and infinite or NaN just where Keras's is. If TFLite's
    sparse encoding fails this and its dense one does not, the dense one is written.

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
        cannot express the model, it was quantised by tfmot, or the file does not
        compute what Keras does. Nothing is written then.
      FileExistsError: There is something at `path`.
      FileNotFoundError: Its folder does not exist.
    """
    if tf.distribute.has_strategy():
        raise ValueError("call export outside of the strategy's scope")
    _check_not_quantised(model)
    network = frameworks.read(model)
    plain = frameworks.stripped(network)
    path = checked_output(path, (".tflite", ""))
    if path.suffix:
        _check_float32(network)
    inputs = _inputs(plain, data)
    check = _Check(plain, list(inputs.values()))
    note = ""
    with written_whole(path) as aside:
        if path.suffix:
            sparse, dense = _convert(plain, aside.with_name("saved_model"))
            is_sparse = len(sparse) < len(dense)
            try:
                found = check(path, _run_tflite(min(sparse, dense, key=len), inputs))
            except ValueError as error:
                if not is_sparse:
                    raise
                found = check(path, _run_tflite(dense, inputs))
                is_sparse = False
                note = (
                    "The weights are stored dense: in TFLite's sparse encoding, which "
                    f"is smaller, this model goes wrong ({first_line(error)})"
                )
            aside.write_bytes(sparse if is_sparse else dense)
            dense_bytes = len(dense)
        else:
            _write_saved_model(plain, aside)
            dense_bytes, is_sparse = _size(aside), False
            loaded = tf.saved_model.load(aside)
            run = loaded.signatures["serving_default"]
            found = check(path, run(**{n: tf.constant(x) for n, x in inputs.items()}))
        weights = [variable.numpy() for variable in plain.weights]
        return Exported(
            path,
            "tflite" if path.suffix else "saved_model",
            sum(weight.size for weight in weights),
            sum(int(np.count_nonzero(weight)) for weight in weights),
            _size(aside),
            dense_bytes,
            _compressed_size(aside),
            is_sparse,
            *found,
            note,
        )


def _check_not_quantised(model: Any) -> None:
    """Refuses layers of tfmot that cannot be copied, and only TFLite understands."""
    parts = getattr(model, "_flatten_layers", tuple)()
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
            f"{len(names) - 1} more layers), and export writes models in floating "
            "point: rounded to 8 bits, a file cannot be compared with Keras. Export "
            "the model as it was before quantize_model; or convert this one yourself, "
            "with converter = tf.lite.TFLiteConverter.from_keras_model(model), "
            "converter.optimizations = [tf.lite.Optimize.DEFAULT] and "
            "converter.convert()"
        )


def _check_float32(network: Network) -> None:
    kinds = {call.layer.compute_dtype for call in network.calls if call.weights}
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


def _convert(model: Any, folder: Path) -> tuple[bytes, bytes]:
    """A model as TFLite files: sparse and dense. The folder is for use on the way."""
    _write_saved_model(model, folder)
    dense = _converted(folder, [])
    sparse = _converted(folder, [tf.lite.Optimize.EXPERIMENTAL_SPARSITY])
    return _with_whole_blocks(sparse, dense), dense


def _with_whole_blocks(sparse: bytes, dense: bytes) -> bytes:
    """Stores those kernels dense that TFLite's sparse encoding gets wrong.

    For a Dense layer TFLite may store blocks of 4 inputs. It mixes the kernel up where
    the number of inputs is no multiple of that, as with 1 to 3.
    """
    right = flatbuffer_utils.convert_bytearray_to_object(bytearray(dense))
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(sparse))
    changed = False
    for graph, twin in zip(model.subgraphs, right.subgraphs, strict=True):
        # A sparse file has the same operators, and some that unpack weights for them.
        operators = [
            operator
            for operator in graph.operators
            if _code(model, operator) != _DENSIFY
        ]
        if len(operators) != len(twin.operators):
            return sparse
        for operator, other in zip(operators, twin.operators, strict=True):
            if _code(model, operator) != _FULLY_CONNECTED:
                continue
            tensor, whole = (
                graph.tensors[operator.inputs[1]],
                twin.tensors[other.inputs[1]],
            )
            if not _broken_blocks(tensor):
                continue
            tensor.sparsity = None
            tensor.buffer = len(model.buffers)
            model.buffers.append(right.buffers[whole.buffer])
            changed = True
    if not changed:
        return sparse
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _code(model: Any, operator: Any) -> int:
    return model.operatorCodes[operator.opcodeIndex].builtinCode


def _broken_blocks(tensor: Any) -> bool:
    if tensor.sparsity is None or not len(tensor.sparsity.blockMap):
        return False
    blocks = tensor.sparsity.dimMetadata[len(tensor.shape) :]
    return any(
        tensor.shape[axis] % block.denseSize
        for axis, block in zip(tensor.sparsity.blockMap, blocks, strict=True)
    )


def _converted(folder: Path, optimizations: list) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = optimizations
    with _explained():
        return converter.convert()


def _run_tflite(file: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with warnings.catch_warnings(), _explained():
        # TensorFlow announces that its interpreter moves to another package.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_content=file)
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


class _Check:
    """Compares outputs with those of Keras on the same inputs."""

    def __init__(self, model: Any, inputs: Sequence[np.ndarray]):
        self._model = model
        self._inputs = inputs
        self._expected = self._run(inputs)

    def __call__(self, path: Path, found: Mapping[str, Any]) -> tuple[float, float]:
        """Largest difference, and largest output; refuses a file that is wrong."""
        difference = largest = 0.0
        for i, want in enumerate(self._expected):
            have = np.asarray(found[f"output_{i}"]).astype("float64")
            off, scale = self._compare(path, i, have, want)
            difference, largest = max(difference, off), max(largest, scale)
        return difference, largest

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        tensors = [tf.constant(x) for x in inputs]
        outputs = _outputs(self._model, tensors)
        return [y.numpy().astype("float64") for y in outputs]

    def _compare(
        self, path: Path, i: int, have: np.ndarray, want: np.ndarray
    ) -> tuple[float, float]:
        wrong = f"{path.name} would not compute what Keras does: output {i} "
        if have.shape != want.shape:
            raise ValueError(
                f"{wrong}has the shape {have.shape}, not {want.shape}. It was not "
                "written"
            )
        finite = np.isfinite(want)
        if want.size and not finite.any():
            raise ValueError(
                f"Keras gives only NaN and infinities for output {i}, so no file can "
                "be compared with it: give other inputs, as data=, or repair the "
                "weights"
            )
        unequal = ~finite & (have != want) & ~(np.isnan(have) & np.isnan(want))
        if unequal.any() or not np.isfinite(have[finite]).all():
            raise ValueError(
                f"{wrong}is NaN or infinite for the one and not for the other. It was "
                "not written"
            )
        highest = np.max(want, 0, keepdims=True, where=finite, initial=-np.inf)
        lowest = np.min(want, 0, keepdims=True, where=finite, initial=np.inf)
        spread = _by_unit(highest - lowest)  # from sample to sample
        have, want = np.where(finite, have, 0), np.where(finite, want, 0)
        off = np.abs(have - want)
        allowed = TOLERANCE * spread
        if (_by_unit(off) > allowed).any():
            allowed = allowed + ROUNDINGS * self._rounding(i)
        if (bad := _by_unit(off) > allowed).any():
            worst = int(np.argmax(np.where(bad, _by_unit(off), 0)))
            raise ValueError(
                f"{wrong}differs by {_by_unit(off)[worst]:.3g} where it varies by "
                f"{spread[worst]:.3g} over the data; at most {allowed[worst]:.3g} is "
                "allowed. It was not written"
            )
        return float(off.max(initial=0)), float(np.abs(want).max(initial=0))

    def _rounding(self, i: int) -> np.ndarray:
        """What one unit in the last place of all inputs and weights does, by unit."""
        generator = np.random.default_rng(0)

        def nudged(x: np.ndarray) -> np.ndarray:
            if not np.issubdtype(x.dtype, np.floating):
                return x
            steps = generator.integers(-1, 2, x.shape) * np.finfo(x.dtype).eps
            return (x * (1 + steps)).astype(x.dtype)

        weights = self._model.get_weights()
        self._model.set_weights([nudged(weight) for weight in weights])
        try:
            outputs = self._run([nudged(x) for x in self._inputs])
        finally:
            self._model.set_weights(weights)
        want = self._expected[i]
        change = np.abs(outputs[i] - want) + np.finfo("float32").eps * np.abs(want)
        return _by_unit(np.where(np.isfinite(change), change, 0))


def _by_unit(x: np.ndarray) -> np.ndarray:
    """The largest values along the last axis, whose entries are units or channels."""
    return x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1).max(axis=0, initial=0)


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
