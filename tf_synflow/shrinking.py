"""Smaller networks of the same function: dead channels taken out, and put back.

A channel that no path from the input reaches is zero, if nothing adds a constant to it;
one from which no path leads to an output does not matter. Both can be taken out of
every layer that carries them. What is left is a dense network of fewer channels (and
masks for what is pruned within them), which is faster on any machine, in training too.
"""

from typing import Any

import numpy as np

from tf_synflow._compat import keras
from tf_synflow.channels import Channels, along
from tf_synflow.copying import same_layer
from tf_synflow.exact_channels import EXACT
from tf_synflow.graph import Call, Graph, flatten, layer_weights, named_weights
from tf_synflow.kept_channels import find_kept
from tf_synflow.masks import Masks, check_count
from tf_synflow.wrapping import masks_of, rebuilt

# Name of a weight to {axis, counted from the end: the places along it that are kept},
# for the axes that lose some.
Cuts = dict[str, dict[int, np.ndarray]]


def shrink(model: Any, multiple_of: int = 1) -> Any:
    """Takes the channels out of a pruned model that lie on no path.

    ```python
    pruned = tf_synflow.prune(model, ratio=100)
    small = tf_synflow.shrink(pruned)  # train, evaluate and export this one
    whole = tf_synflow.expand(small, pruned)
    ```

    The smaller model computes the same function, in training and in inference mode. A
    channel that is fed by nothing but carries a constant (a bias, or the offset of a
    trained BatchNormalization) stays. So does every channel of a layer of no known
    kind, of a grouped convolution, of what normalises across channels, and of an
    operator that names a number of channels (`tf.reshape(x, (-1, 8))`). A product is 0
    where one factor is: a channel that is 0 goes out of its gate too.

    Training goes the same way too, but for this: a channel that is read, though nothing
    feeds it, would have learned a constant, as soon as training gives it a bias or an
    offset (a gate that is 0 would have opened); taken out before training, or kept with
    what reads it masked, it cannot.
    (Behind a ReLU it would not have: of ReLU at 0 TensorFlow's gradient is 0.) Dropout
    draws for the channels that there are. And constraints and optimizers that look at a
    whole tensor (a norm, say) see a smaller one. So do weight regularizers:
    kept weights that lie on no path leave the loss. Activity regularizers still see all
    channels of their layers.

    Args:
      model: A built Sequential or functional tf_keras model: pruned; or stripped, where
        weights that are 0 count as pruned. It is not changed.
      multiple_of: Keeps dead channels too, so that each layer has a multiple of so
        many, or all that it had: more to compute, and faster nevertheless where vectors
        are of 8 or 16 numbers. (Where a strided 1x1 convolution reads several layers
        side by side, it is their sum.) At least 1. Defaults to 1.

    Returns:
      A new, uncompiled model of the same class and layer names with fewer channels,
      pruned layers wrapped and masked. Of a group of channels that are all dead, one is
      left; and before a strided 1x1 convolution so many that there are 16, 32, 48 ...
      (TensorFlow 2.21 computes gradients wrongly for other numbers). What reads such a
      channel is masked too; where it cannot be, because its layer has no mask or the
      model is stripped, the channel counts as living, with all that it needs.

    Raises:
      TypeError: `model` is no tf_keras model, or `multiple_of` no whole number.
      ValueError: It is subclassed or not built, or `multiple_of` is below 1.
    """
    graph = flatten(model)
    check_count("multiple_of", multiple_of)
    plan = _Plan(graph, multiple_of)
    masks = plan.masks()
    layers = {id(call.layer): call for call in graph.calls}
    small = rebuilt(
        model,
        masks,
        make=lambda layer: plan.smaller_layer(layers[id(layer)]),
        weights=lambda layer: not plan.loses_weights(layers[id(layer)]),
        inputs=plan.nested_inputs,
    )
    variables = named_weights(flatten(small))
    with small.distribute_strategy.scope():
        for name, variable in named_weights(graph).items():
            value = plan.cut(name, variable.numpy())
            if name in masks:
                value = np.where(masks[name], value, 0)
            variables[name].assign(value)
    return small


def expand(small: Any, original: Any, multiple_of: int = 1) -> Any:
    """Puts the weights of a shrunk model back into the network that it came from.

    Args:
      small: What `shrink(original, multiple_of)` gave, trained or not.
      original: The model that was shrunk, unchanged since. It is not changed.
      multiple_of: What `shrink` was given. Defaults to 1.

    Returns:
      A new, uncompiled model with the layers and masks of `original` and the function
      of `small`: what was taken out has the values that it has in `original`.

    Raises:
      TypeError: One of them is no tf_keras model, or `multiple_of` no whole number.
      ValueError: `small` is not what `shrink` makes of `original`.
    """
    graph, found = flatten(original), flatten(small)
    check_count("multiple_of", multiple_of)
    plan = _Plan(graph, multiple_of)
    values, wholes = named_weights(found), named_weights(graph)
    wanted = {name: plan.shape(name, v.shape) for name, v in wholes.items()}
    have = {name: tuple(variable.shape) for name, variable in values.items()}
    if wanted != have:
        other = [
            name for name in {**wanted, **have} if wanted.get(name) != have.get(name)
        ]
        raise ValueError(
            f"this is not what shrink(original, {multiple_of}) gives: "
            + "; ".join(
                f"{name!r} has shape {have.get(name)}, expected {wanted.get(name)}"
                for name in other[:3]
            )
            + ". Give the very model that was shrunk, not trained or pruned since, and "
            "the same multiple_of"
        )
    smaller, own = plan.masks(), masks_of(found)
    if own.keys() != smaller.keys() or any(
        not np.array_equal(own[name], smaller[name]) for name in own
    ):
        raise ValueError(
            "the masks of the small model are not those of the original: give the very "
            "model that was shrunk, not pruned since (and not stripped, if the small "
            "one is not)"
        )
    whole = rebuilt(original, masks_of(graph))
    with whole.distribute_strategy.scope():
        for name, variable in named_weights(flatten(whole)).items():
            value = np.array(variable.numpy())  # a scalar's is none
            places, new = plan.places(name, value.shape), values[name].numpy()
            # What was masked in the small network alone is as it was.
            kept = smaller.get(name, np.ones(new.shape, bool))
            value[places] = np.where(kept, new, value[places])
            variable.assign(value)
    return whole


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


def expand_masks(masks: Masks, original: Any) -> Masks:
    """The masks of a shrunk model as those of the model that it came from.

    Args:
      masks: Name to mask, of what `shrink(original)` gave.
      original: The model that was shrunk.

    Returns:
      Name to mask of the weights of `original`; what was taken out is False.
    """
    graph = flatten(original)
    found, plan = masks_of(graph), _Plan(graph)
    whole = {}
    for name, mask in masks.items():
        whole[name] = np.zeros(found[name].shape, bool)
        whole[name][plan.places(name, found[name].shape)] = mask
    return whole


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
