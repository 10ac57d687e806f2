"""TODO."""

from typing import Any

import numpy as np

from tf_synflow.channels.groups import Channels, along
from tf_synflow.channels.kept import find_kept
from tf_synflow.channels.needed import EXACT
from tf_synflow.keras2.copying import same_layer
from tf_synflow.keras2.imports import keras
from tf_synflow.keras2.reading import masks_of
from tf_synflow.masks.types import Masks
from tf_synflow.network import Call, Graph, layer_weights, named_weights

# Name of a weight to {axis, counted from the end: the places along it that are kept},
# for the axes that lose some.
Cuts = dict[str, dict[int, np.ndarray]]


def shrunk_shapes(graph: Graph) -> tuple[dict[str, tuple[int, ...]], int]:
    """What a network is once it is shrunk.

    Args:
      graph: The model, laid flat.

    Returns:
      Name to shape of each weight; and how many of the channels taken out are read,
      though nothing feeds them.
    """
    plan = _Plan(graph)
    shapes = {n: plan.shape(n, v.shape) for n, v in named_weights(graph).items()}
    return shapes, plan.unfed


class _Plan:
    """What is taken out of a network.

    Attributes:
      cuts: See `Cuts`.
      unfed: Number of channels that are read, though nothing feeds them.
    """

    def __init__(self, graph: Graph, multiple_of: int = 1):
        """Finds the channels that live, and those that are kept beside them."""
        masks = masks_of(graph)
        variables = named_weights(graph)
        channels = Channels(graph, set(variables), EXACT)
        for number in graph.outputs:
            channels.hold(channels.signals[number])
        kept, living, self.unfed = find_kept(graph, channels, masks, int(multiple_of))
        self._sizes = {
            number: int(along(groups, kept).sum())
            for number, groups in channels.signals.items()
        }
        self._places = channels.places
        self._graph = graph
        self._masks = masks
        # Rows of kernels that read what is kept though it is dead. They are masked, or
        # training could bring to life in the small network what the whole one has not.
        self._idle = {
            name: (into, ~along(groups, living)[along(groups, kept)])
            for name, (into, _) in channels.kernels.items()
            for groups in [channels.axes[name][into]]
        }
        self.cuts: Cuts = {}
        for name, axes in channels.axes.items():
            stay = {axis: along(groups, kept) for axis, groups in axes.items()}
            cut = {a: np.flatnonzero(s) for a, s in stay.items() if not s.all()}
            if cut and name in variables:
                self.cuts[name] = cut

    def masks(self) -> Masks:
        """The masks of the smaller network."""
        smaller = {name: self.cut(name, mask) for name, mask in self._masks.items()}
        for name, (into, idle) in self._idle.items():
            if name in smaller:
                np.moveaxis(smaller[name], into, -1)[..., idle] = False
        return smaller

    def cut(self, name: str, array: np.ndarray) -> np.ndarray:
        """What is left of a weight, or of its mask."""
        return array[self.places(name, array.shape)]

    def places(self, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        """An index of what is left of a weight."""
        cut = self.cuts.get(name, {})
        rank = len(shape)
        every = [cut.get(a - rank, np.arange(n)) for a, n in enumerate(shape)]
        return np.ix_(*every) if every else ()

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is left of a weight."""
        cut = self.cuts.get(name, {})
        rank = len(shape)
        return tuple(
            cut[a - rank].size if a - rank in cut else n for a, n in enumerate(shape)
        )

    def loses_weights(self, call: Call) -> bool:
        """Whether any weight of a layer is cut."""
        return any(f"{call.name}/{w}" in self.cuts for w in layer_weights(call.layer))

    def smaller_layer(self, call: Call) -> Any:
        """A new layer for the channels that are left."""
        config = call.layer.get_config()
        number = call.outputs[0]
        if isinstance(call.layer, keras.layers.Reshape):
            place = self._places[number]
            if self._sizes[number] != self._graph.shapes[number][place]:
                sizes = list(config["target_shape"])
                sizes[place - 1] = self._sizes[number]
                config["target_shape"] = tuple(sizes)
        elif self.loses_weights(call):
            for key in ("filters", "units"):
                if key in config:
                    config[key] = self._sizes[number]
            for key, value in config.items():
                if key.endswith("_initializer") and np.ndim(_constant(value)):
                    config[key] = "zeros"  # the array would not fit
        else:
            return same_layer(call.layer)
        return type(call.layer).from_config(config)

    def nested_inputs(self, model: Any) -> list[tuple] | None:
        """The shapes that the inputs of a nested model have now; None: as before."""
        for nested, reads in self._graph.nested:
            if nested is model:
                shapes = []
                for tensor, number in zip(model.inputs, reads, strict=True):
                    shape, place = list(tensor.shape), self._places[number]
                    if self._graph.shapes[number][place] is not None:
                        shape[place] = self._sizes[number]
                    shapes.append(tuple(shape))
                whole = [tuple(tensor.shape) for tensor in model.inputs]
                return None if shapes == whole else shapes
        return None  # the model itself


def _constant(initializer: Any) -> Any:
    """The value of an initializer's configuration, if it is a constant."""
    config = initializer.get("config") if isinstance(initializer, dict) else None
    return (config or {}).get("value", 0)
