"""Data for the criteria that need it: batches of inputs and labels, checked."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.imports import keras

# Only the memory use depends on this size: gradients are summed over all batches.
_BATCH_SIZE = 128

_EXPECTED = (
    "expected data=(x, y), two arrays, or (x, y, sample_weight); or a tf.data.Dataset "
    "or a keras.utils.Sequence of such batches"
)

_WRAPPED = "prune_low_magnitude_"  # what tfmot puts before the name of an output


class Batch(NamedTuple):
    """A part of the data.

    Attributes:
      inputs: Tensors in the order of the model's inputs.
      labels: A tensor for each output; None for an output without labels.
      weights: Sample weights for each output; None for an output without weights.
    """

    inputs: list[Any]
    labels: list[Any]
    weights: list[Any]


def output_names(model: Any) -> list[str]:
    """The names by which Keras knows a model's outputs, without tfmot's prefix."""
    nested = getattr(model, "_nested_outputs", None)
    if isinstance(nested, dict) and len(nested) == len(model.outputs):
        return sorted(nested)  # as tf.nest lays a dictionary flat
    return [name.removeprefix(_WRAPPED) for name in model.output_names]


def by_output(what: str, given: Any, names: list[str]) -> list[Any]:
    """Turns the user's list or dictionary into a list with one entry for each output.

    Args:
      what: The name of `given` in errors.
      given: None, a dictionary by name of the output, or a list in the order of the
        outputs. If the model has one output, also the entry itself.
      names: See `output_names`.

    Returns:
      An entry for each output, None where nothing was given.

    Raises:
      ValueError: `given` does not fit the outputs.
    """
    if given is None:
        return [None] * len(names)
    if isinstance(given, dict):
        named = {str(name).removeprefix(_WRAPPED): v for name, v in given.items()}
        unknown = [name for name in named if name not in names]
        if unknown:
            raise ValueError(
                f"{what} names the outputs {unknown}, but the model's outputs are "
                f"{names}"
            )
        return [named.get(name) for name in names]
    listed = isinstance(given, (list, tuple))
    if not listed and len(names) == 1:
        return [given]
    if not listed or len(given) != len(names):
        raise ValueError(
            f"the model has {len(names)} outputs, {names}: {what} must be a list with "
            "an entry for each, in this order, or a dictionary by name; got "
            f"{_kind(given)}"
        )
    return list(given)


class Samples:
    """All of the user's data in batches, which can be read several times."""

    def __init__(self, data: Any, model: Any):
        """Checks the data without reading all batches.

        Args:
          data: `(x, y)` or `(x, y, sample_weight)`, arrays of equal length, which are
            cut into batches; or a `tf.data.Dataset` or `keras.utils.Sequence` of such
            batches. x may be a list, or a dictionary by input name, if the model has
            several inputs; y likewise for several outputs. sample_weight is one array
            for all outputs, or a list or dictionary like y.
          model: The model that the data is for.

        Raises:
          TypeError: `data` is of another kind.
          ValueError: There is no data, or it does not fit the model's input.
        """
        self._names = model.input_names
        self._shapes = [tuple(tensor.shape) for tensor in model.inputs]
        self._outputs = output_names(model)
        if data is None:
            raise ValueError(
                "this criterion needs data, and got none. Give data=(x, y), where x is "
                "images and y is their labels (usually ten images for each class), or "
                "a tf.data.Dataset of (x, y) batches"
            )
        if isinstance(data, tf.data.Dataset):
            self._batches = self._checked(data)
        elif _is_sequence(data):
            self._batches = _Indexed(data)
        elif isinstance(data, (tuple, list)) and len(data) in (2, 3):
            self._batches = self._cut(*data)
        else:
            raise TypeError(f"{_EXPECTED}; got {_kind(data)}")

    def __iter__(self) -> Iterator[Batch]:
        """Gives the batches, as tensors.

        Raises:
          TypeError: An element of the data is no batch.
          ValueError: There is no sample, or a batch does not fit.
        """
        empty = True
        for element in self._batches:
            if not isinstance(element, (tuple, list)) or len(element) not in (2, 3):
                raise TypeError(f"{_EXPECTED}; a batch of this one is {_kind(element)}")
            batch = self._batch(*element)
            if batch.inputs[0].shape[0]:
                empty = False
                yield batch
        if empty:
            raise ValueError("data is empty: there is no sample to score by")

    def __len__(self) -> int:
        """The number of batches; raises TypeError if the number is not known."""
        return len(self._batches)

    def _batch(self, x: Any, y: Any, weights: Any = None) -> Batch:
        inputs = [tf.convert_to_tensor(part) for part in self._inputs(x)]
        self._fit([tuple(tensor.shape) for tensor in inputs])
        labels = self._labels(y)
        for part in labels:
            if isinstance(part, (dict, list, tuple)):
                raise TypeError(f"labels must be one array, got {_kind(part)}")
        parts = [_tensors(labels), _tensors(self._weights(weights))]
        for what, tensors in zip(("labels", "sample weights"), parts, strict=True):
            for tensor in tensors:
                if tensor is None:
                    continue
                if tensor.shape.rank == 0 or tensor.shape[0] != inputs[0].shape[0]:
                    raise ValueError(
                        f"a batch has {inputs[0].shape[0]} inputs but {what} of shape "
                        f"{tuple(tensor.shape)}: there must be as many"
                    )
        return Batch(inputs, *parts)

    def _inputs(self, x: Any) -> list[Any]:
        """The inputs as a list in the model's order."""
        if isinstance(x, dict):
            missing = [name for name in self._names if name not in x]
            if missing:
                raise ValueError(
                    f"data has no input for {missing}; it has {list(x)}, and the model "
                    f"wants {self._names}"
                )
            return [x[name] for name in self._names]
        return list(x) if isinstance(x, (tuple, list)) else [x]

    def _labels(self, y: Any) -> list[Any]:
        """The labels of each output; for one output, also a plain list of numbers."""
        if len(self._outputs) > 1 or not isinstance(y, (tuple, list)):
            return by_output("y", y, self._outputs)
        alone = len(y) == 1 and (y[0] is None or hasattr(y[0], "shape"))
        return list(y) if alone else [y]

    def _weights(self, weights: Any) -> list[Any]:
        """The sample weights of each output; a single array is for all outputs."""
        if hasattr(weights, "shape"):
            return [weights] * len(self._outputs)
        if len(self._outputs) == 1 and isinstance(weights, (tuple, list)):
            return self._labels(weights)
        return by_output("sample_weight", weights, self._outputs)

    def _fit(self, shapes: list[tuple[int | None, ...]]) -> None:
        """Refuses inputs of these shapes, batch axis first, if they do not fit."""
        fits = len(shapes) == len(self._shapes) and all(
            len(own) == len(wanted)
            and all(a == b or None in (a, b) for a, b in zip(own, wanted, strict=True))
            for own, wanted in zip(shapes, self._shapes, strict=True)
        )
        if not fits:
            raise ValueError(
                f"data has inputs of shape {_text(shapes)}, batch axis first, but the "
                f"model's input is {_text(self._shapes)}; check the image size, and "
                "that the data comes in batches"
            )

    def _cut(self, x: Any, y: Any, weights: Any = None) -> "_Slices":
        inputs = [_array("x", part) for part in self._parts(x)]
        labels = _arrays("y", self._labels(y))
        weights = _arrays("sample_weight", self._weights(weights))
        arrays = [a for a in [*inputs, *labels, *weights] if a is not None]
        lengths = [len(a) if a.ndim else None for a in arrays]
        if len(set(lengths)) != 1:
            raise ValueError(
                f"x and y (and sample_weight, if given) differ in length, {lengths}: "
                "each input needs one label"
            )
        if not lengths[0]:
            raise ValueError("data is empty: there is no sample to score by")
        self._fit([(None, *array.shape[1:]) for array in inputs])
        size = self._shapes[0][0] or _BATCH_SIZE
        return _Slices((inputs, labels, weights), lengths[0], size)

    def _parts(self, x: Any) -> list[Any]:
        """The arrays of x; a single input may be a plain list of numbers."""
        if len(self._shapes) == 1 and not isinstance(x, dict):
            return [x]
        return self._inputs(x)

    def _checked(self, dataset: Any) -> Any:
        spec = dataset.element_spec
        if not (isinstance(spec, tuple) and len(spec) in (2, 3)):
            raise TypeError(f"{_EXPECTED}; the elements of this Dataset are {spec}")
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                "data never ends: the Dataset is repeated for ever; say how many "
                "batches with dataset.take(n)"
            )
        shapes = [part.shape for part in self._inputs(spec[0])]
        if all(shape.rank is not None for shape in shapes):
            self._fit([tuple(shape) for shape in shapes])
        return dataset


class _Slices:
    """Arrays cut into batches."""

    def __init__(self, parts: tuple[list[Any], ...], length: int, size: int):
        self._parts, self._length, self._size = parts, length, size

    def __len__(self) -> int:
        return math.ceil(self._length / self._size)

    def __iter__(self) -> Iterator[tuple[list[Any], ...]]:
        for start in range(0, self._length, self._size):
            yield tuple(
                [a if a is None else a[start : start + self._size] for a in arrays]
                for arrays in self._parts
            )


class _Indexed:
    """The batches of a Sequence, which may have no iterator of its own."""

    def __init__(self, sequence: Any):
        self._sequence = sequence

    def __len__(self) -> int:
        return len(self._sequence)

    def __iter__(self) -> Iterator[Any]:
        return (self._sequence[number] for number in range(len(self)))


def _is_sequence(data: Any) -> bool:
    """Whether data is a Sequence of Keras 2, or what Keras 3 calls a PyDataset."""
    names = [kind.__name__ for kind in type(data).__mro__]
    return isinstance(data, keras.utils.Sequence) or "PyDataset" in names


def _kind(data: Any) -> str:
    kind = type(data).__name__
    return f"{kind} of {len(data)}" if isinstance(data, (tuple, list)) else kind


def _tensors(parts: list[Any]) -> list[Any]:
    return [part if part is None else tf.convert_to_tensor(part) for part in parts]


def _arrays(what: str, parts: list[Any]) -> list[Any]:
    return [part if part is None else _array(what, part) for part in parts]


def _array(what: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{what} is no array: {error}") from error
    if array.dtype == object:
        raise ValueError(f"{what} must be one array of numbers, got {type(values)}")
    return array


def _text(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes))
