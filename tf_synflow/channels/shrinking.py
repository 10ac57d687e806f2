"""Takes dead channels out of a network, which keeps its function, and puts them back.

A channel that no path from the input reaches is zero, if nothing adds a constant to it.
A channel from which no path leads to an output does not matter. Both kinds of channels
can be taken out of every layer that carries them. What is left is a network of dense
arrays with fewer channels, and masks for the weights that are pruned within them. The
smaller network is faster on any machine, in training too.
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
    """Takes channels that lie on no path out of a pruned model.

    ```python
    pruned = tf_synflow.prune(model, ratio=100)
    small = tf_synflow.shrink(pruned)  # train, evaluate and export this one
    whole = tf_synflow.expand(small, pruned)
    ```

    The smaller model computes the same function, in training and in inference mode. A
    channel that nothing feeds stays if it carries a constant (a bias, or the offset of
    a trained BatchNormalization). All channels stay in a layer of an unknown kind, in a
    grouped convolution, in a layer that normalises across channels, and in an operator
    that names a number of channels (`tf.reshape(x, (-1, 8))`). A product is 0 where one
    factor is 0, so a channel that is 0 is taken out of its gate too.

    MultiHeadAttention loses its dead heads, its dead value units, and each dead pair of
    a query unit and a key unit. It may become a `ScaledAttention`. A file with that
    layer can be loaded only with tf_synflow; `strip` makes it Keras's own layer again.

    Training goes the same way too, with these exceptions:

    - A channel may be read though nothing feeds it. In the pruned model such a channel
      can learn a constant, as soon as training gives it a bias or an offset. (A gate
      that is 0 can open.) In the smaller model it cannot: either the channel is taken
      out, or the weights that read it are masked. Behind a ReLU there is no difference,
      because TensorFlow defines ReLU's gradient at 0 as 0.
    - Dropout draws random numbers only for the channels that are left.
    - Constraints and optimizers that look at a whole tensor (at its norm, say) see a
      smaller tensor.
    - Weight regularizers see smaller tensors too: kept weights that lie on no path no
      longer count in the loss. Activity regularizers still see all channels of their
      layers.

    Args:
      model: A built Sequential or functional Keras model, pruned or stripped. In a
        stripped model, weights that are 0 count as pruned. The model is not changed.
      multiple_of: Dead channels are kept too, so that the number of channels of each
        layer is a multiple of this, or all that the layer had. The model then has more
        to compute, but is faster on machines that compute with vectors of 8 or 16
        numbers. If a strided 1x1 convolution reads several layers side by side, the sum
        of their channels is a multiple of this. At least 1. Defaults to 1.

    Returns:
      A new, uncompiled model with the same class and layer names and fewer channels.
      Its pruned layers have masks. If all channels of a group are dead, one
      of them is left. Before a strided 1x1 convolution, dead channels are left so that
      there are 16, 32, 48 ... channels (TensorFlow 2.21 computes wrong gradients for
      other numbers). The weights that read such dead channels are masked too. If they
      cannot be masked, because their layer has no mask or the model is stripped, the
      channel counts as alive, and so does everything that it needs.

    Raises:
      TypeError: `model` is no Keras model, or `multiple_of` is no whole number.
      ValueError: `model` is subclassed or not built, or `multiple_of` is below 1.
    """
    check_count("multiple_of", multiple_of)
    return smaller_model(ChannelPlan(frameworks.read(model), int(multiple_of)))


def smaller_model(plan: ChannelPlan) -> Any:
    """The model that is left when a plan is carried out; see `shrink`."""
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
      small: The model that `shrink(original, multiple_of)` returned, trained or not.
      original: The model that was shrunk, unchanged since then. `expand` does not
        change it.
      multiple_of: The number that `shrink` was given. Defaults to 1.

    Returns:
      A new, uncompiled model with the layers and masks of `original` and the function
      of `small`. Weights that were taken out have their values from `original`.

    Raises:
      TypeError: `small` or `original` is no Keras model, or `multiple_of` is no whole
        number.
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
            value = np.array(variable.numpy())  # a scalar's .numpy() is no array
            places, new = plan.places(name, value.shape), found.weights[name].numpy()
            # Weights that are masked only in the small network keep their old values.
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
        # The layer still divides by the square root of the key_dim that it had.
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
    """The new shapes of a nested model's inputs; None if they are as before."""
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
    return None  # the outermost model


def _constant(initializer: Any) -> Any:
    """The value of an initializer's configuration, if it is a constant."""
    config = initializer.get("config") if isinstance(initializer, dict) else None
    return (config or {}).get("value", 0)
