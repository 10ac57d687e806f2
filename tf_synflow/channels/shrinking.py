"""Smaller networks of the same function: dead channels taken out, and put back.

A channel that no path from the input reaches is zero, if nothing adds a constant to it;
one from which no path leads to an output does not matter. Both can be taken out of
every layer that carries them. What is left is a dense network of fewer channels (and
masks for what is pruned within them), which is faster on any machine, in training too.
"""

import math
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.channels.heads import smaller_config
from tf_synflow.channels.plan import ChannelPlan
from tf_synflow.channels.rules import REGISTERED
from tf_synflow.checks import check_count
from tf_synflow.network import Call, Network


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
    MultiHeadAttention loses heads, pairs of a query and a key unit, and value units
    that are dead; it may become a `ScaledAttention`, which needs tf_synflow to load
    (`strip` makes it Keras's own layer again).

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
      model: A built Sequential or functional Keras model: pruned; or stripped, where
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
      TypeError: `model` is no Keras model, or `multiple_of` no whole number.
      ValueError: It is subclassed or not built, or `multiple_of` is below 1.
    """
    check_count("multiple_of", multiple_of)
    return smaller_model(ChannelPlan(frameworks.read(model), int(multiple_of)))


def smaller_model(plan: ChannelPlan) -> Any:
    """The model that is left once a plan is carried out; see `shrink`."""
    network, masks = plan.network, plan.masks()
    adapter = frameworks.adapter_of(network.model)
    calls = {id(call.layer): call for call in network.calls}
    small, variables = adapter.rebuild(
        network,
        masks,
        make=lambda layer: _smaller_layer(plan, calls[id(layer)]),
        weights=lambda layer: not plan.loses_weights(calls[id(layer)]),
        inputs=lambda nested: _nested_inputs(plan, nested),
    )
    with adapter.scope(small):
        for name, variable in network.weights.items():
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
      TypeError: One of them is no Keras model, or `multiple_of` no whole number.
      ValueError: `small` is not what `shrink` makes of `original`.
    """
    check_count("multiple_of", multiple_of)
    network, found = frameworks.read(original), frameworks.read(small)
    if frameworks.adapter_of(original) is not frameworks.adapter_of(small):
        raise ValueError(
            "one of the models is of Keras 3 and the other of Keras 2: give the small "
            "model and the one that it was made from"
        )
    plan = ChannelPlan(network, int(multiple_of))
    _check_same(plan, found, multiple_of)
    return whole_model(plan, found)


def whole_model(plan: ChannelPlan, found: Network) -> Any:
    """The whole network with the weights of a small one; see `expand`."""
    smaller, network = plan.masks(), plan.network
    adapter = frameworks.adapter_of(network.model)
    whole, variables = adapter.rebuild(network, network.masks)
    with adapter.scope(whole):
        for name, variable in variables.items():
            value = np.array(variable.numpy())  # a scalar's is none
            places, new = plan.places(name, value.shape), found.weights[name].numpy()
            # What was masked in the small network alone is as it was.
            kept = smaller.get(name, np.ones(new.shape, bool))
            value[places] = np.where(kept, new, value[places])
            variable.assign(value)
    return whole


def _check_same(plan: ChannelPlan, found: Network, multiple_of: int) -> None:
    """Refuses a small network that is not what the plan makes."""
    wanted = plan.shapes()
    have = {name: tuple(variable.shape) for name, variable in found.weights.items()}
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
    smaller = plan.masks()
    if found.masks.keys() != smaller.keys() or any(
        not np.array_equal(mask, smaller[name]) for name, mask in found.masks.items()
    ):
        raise ValueError(
            "the masks of the small model are not those of the original: give the very "
            "model that was shrunk, not pruned since (and not stripped, if the small "
            "one is not)"
        )


def _smaller_layer(plan: ChannelPlan, call: Call) -> Any:
    """A new layer for the channels that are left."""
    adapter = frameworks.adapter_of(call.layer)
    config = adapter.config_of(call.layer)
    number = call.outputs[0]
    if (heads := plan.heads.get(call.name)) is not None:
        smaller = smaller_config(config, heads)
        # It goes on dividing by the square root of the key_dim that it had.
        factor = getattr(call.layer, "query_factor", 1.0)
        factor *= math.sqrt(smaller["key_dim"] / config["key_dim"])
        return adapter.with_factor(smaller, factor)
    if call.kind == "Reshape":
        place = plan.channels.places[number]
        if plan.sizes[number] != plan.network.shapes[number][place]:
            sizes = list(config["target_shape"])
            sizes[place - 1] = plan.sizes[number]
            config["target_shape"] = tuple(sizes)
    elif plan.loses_weights(call):
        registered = REGISTERED.get(type(call.layer))
        for key in ("filters", "units") if registered is None else (registered.size,):
            if key in config:
                config[key] = plan.sizes[number]
        for key, value in config.items():
            if key.endswith("_initializer") and np.ndim(_constant(value)):
                config[key] = "zeros"  # the array would not fit
    return adapter.layer_from(type(call.layer), config)


def _nested_inputs(plan: ChannelPlan, model: Any) -> list[tuple] | None:
    """The shapes that the inputs of a nested model have now; None: as before."""
    for nested, reads in plan.network.nested:
        if nested is model:
            shapes = []
            for tensor, number in zip(model.inputs, reads, strict=True):
                shape, place = list(tensor.shape), plan.channels.places[number]
                if plan.network.shapes[number][place] is not None:
                    shape[place] = plan.sizes[number]
                shapes.append(tuple(shape))
            whole = [tuple(tensor.shape) for tensor in model.inputs]
            return None if shapes == whole else shapes
    return None  # the model itself


def _constant(initializer: Any) -> Any:
    """The value of an initializer's configuration, if it is a constant."""
    config = initializer.get("config") if isinstance(initializer, dict) else None
    return (config or {}).get("value", 0)
