"""Data for the criteria that need it: batches of inputs and labels, checked."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_synflow._compat import tf

# Only the memory depends on it: gradients are summed over all batches.
_BATCH_SIZE = 128

_EXPECTED = "expected data=(x, y), two arrays, or a tf.data.Dataset of batches (x, y)"


class Samples:
    """All that there is of the user's data, batch by batch, as often as wanted."""

    def __init__(self, data: Any, model: Any):
        """Looks at the data without going through it.

        Args:
          data: `(x, y)`, arrays of equal length, which are cut into batches; or a
            `tf.data.Dataset` of batches `(x, y)`. x may be a list, or a dictionary by
            input name, if the model has several inputs.
          model: The model that the data is for.

        Raises:
          TypeError: It is neither.
          ValueError: There is none, or it does not fit the model's input.
        """
        self._names = model.input_names
        self._shapes = [tuple(tensor.shape) for tensor in model.inputs]
        if data is None:
            raise ValueError(
                "this criterion needs data, and got none: give data=(x, y), images and "
                "labels (ten a class are usual), or a tf.data.Dataset of such batches"
            )
        if isinstance(data, tf.data.Dataset):
            self._dataset = self._checked(data)
        elif isinstance(data, (tuple, list)) and len(data) == 2:
            self._dataset = self._cut(*data)
        else:
            raise TypeError(f"{_EXPECTED}; got {type(data).__name__}")

    def __iter__(self) -> Iterator[tuple[list[Any], Any]]:
        """Gives (list of inputs, labels) as tensors.

        Raises:
          ValueError: There is no batch, or one does not fit.
        """
        empty = True
        for x, y in self._dataset:
            inputs = self._inputs(x)
            if not hasattr(y, "shape"):
                raise TypeError(f"labels must be one array, got {type(y).__name__}")
            self._fit([tuple(tensor.shape) for tensor in inputs])
            if y.shape.rank == 0 or y.shape[0] != inputs[0].shape[0]:
                raise ValueError(
                    f"a batch has {inputs[0].shape[0]} inputs but labels of shape "
                    f"{tuple(y.shape)}: there must be as many"
                )
            empty = empty and not y.shape[0]
            if y.shape[0]:
                yield inputs, y
        if empty:
            raise ValueError("data is empty: there is no sample to score by")

    def __len__(self) -> int:
        """The number of batches. TypeError if it is not known."""
        return len(self._dataset)

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

    def _cut(self, x: Any, y: Any) -> Any:
        inputs = [_array("x", part) for part in self._parts(x)]
        y = _array("y", y)
        lengths = [len(a) if a.ndim else None for a in [*inputs, y]]
        if len(set(lengths)) != 1:
            raise ValueError(
                f"x and y differ in length, {lengths}: each input needs one label"
            )
        if not lengths[0]:
            raise ValueError("data is empty: there is no sample to score by")
        self._fit([(None, *array.shape[1:]) for array in inputs])
        whole = tf.data.Dataset.from_tensor_slices((tuple(inputs), y))
        return whole.batch(self._shapes[0][0] or _BATCH_SIZE)

    def _parts(self, x: Any) -> list[Any]:
        """The arrays of x: one input may be a plain list of numbers."""
        if len(self._shapes) == 1 and not isinstance(x, dict):
            return [x]
        return self._inputs(x)

    def _checked(self, dataset: Any) -> Any:
        spec = dataset.element_spec
        if not (isinstance(spec, tuple) and len(spec) == 2):
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
