"""Smaller networks of the same function: dead channels taken out, and put back.

A channel that no path from the input reaches is zero, if nothing adds a constant to it;
one from which no path leads to an output does not matter. Both can be taken out of
every layer that carries them. What is left is a dense network of fewer channels (and
masks for what is pruned within them), which is faster on any machine, in training too.
"""

from typing import Any

import numpy as np

from tf_synflow.channels.plan import _Plan
from tf_synflow.checks import check_count
from tf_synflow.keras2.reading import flatten, masks_of
from tf_synflow.keras2.wrapping import rebuilt
from tf_synflow.masks.types import Masks
from tf_synflow.network import named_weights


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
