"""Which channels a network can do without: `channels` with its function in view.

For its scores SynFlow takes every activation for the identity. Here, where channels
are taken out of the network itself, it matters what a layer makes of a channel that is
zero, whether it looks at one channel at a time, and what it adds.
"""

from typing import Any

import numpy as np

from tf_synflow._compat import OperatorLayer, keras, tf
from tf_synflow.channels import RULES, Axis, Channels, Rule
from tf_synflow.graph import Call, Graph, layer_weights

_layers = keras.layers


def strided_1x1(layer: Any) -> bool:
    """Whether a layer is a convolution of single places that passes some over."""
    kinds = (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
    if type(layer) not in kinds:
        return False
    return set(layer.kernel_size) == {1} and max(layer.strides) > 1


def find_sources(graph: Graph, channels: Channels) -> dict[int, np.ndarray]:
    """The channels to which a layer adds what does not come from the input.

    Args:
      graph: The model, laid flat.
      channels: Its channels, by `EXACT`.

    Returns:
      Group to boolean vector.
    """
    found = {group: np.zeros(n, bool) for group, n in channels.sizes.items()}
    for call in graph.calls:
        groups = channels.signals[call.outputs[0]]
        if set(groups) <= channels.held:
            continue
        weights = layer_weights(call.layer)
        added = np.zeros(sum(channels.sizes[group] for group in groups), bool)
        for short in ("bias", "beta", "moving_mean", "renorm_mean"):
            if short in weights:
                added |= weights[short].numpy() != 0
        if _lifts_zero(call.layer):
            added[:] = True
        first = 0
        for group in groups:
            found[group] |= added[first : first + channels.sizes[group]]
            first += channels.sizes[group]
    return found


_ELEMENTWISE = {
    *map(
        keras.activations.get,
        (
            *("linear", "relu", "elu", "selu", "gelu", "swish", "softplus", "softsign"),
            *("tanh", "sigmoid", "hard_sigmoid", "exponential", "mish"),
        ),
    ),
    *(tf.identity, tf.nn.relu, tf.nn.relu6, tf.nn.leaky_relu, tf.nn.elu, tf.nn.selu),
    *(tf.nn.gelu, tf.nn.silu, tf.nn.softplus, tf.nn.softsign, tf.tanh, tf.sigmoid),
}
_RECTIFIERS = (
    *(keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU),
    *(keras.layers.ThresholdedReLU,),
)


def _lifts_zero(layer: Any) -> bool:
    """Whether the activation in a layer makes something else of 0."""
    zero = tf.zeros([1, 1])
    if isinstance(layer, _RECTIFIERS):
        return bool(tf.reduce_any(layer.call(zero) != 0))
    activation = getattr(layer, "activation", None)
    return callable(activation) and bool(tf.reduce_any(activation(zero) != 0))


def _by_channel(layer: Any) -> bool:
    """Whether what a layer adds to its linear part looks at one channel at a time."""
    activation = getattr(layer, "activation", None)
    return activation is None or activation in _ELEMENTWISE


def _careful(rule: Rule) -> Rule:
    """A rule that takes bias and activation into account."""

    def careful(
        channels: Channels, call: Call, inputs: list[Axis], shapes: list
    ) -> Axis | None:
        if getattr(call.layer, "noise_shape", None) is not None:
            return None  # names numbers of channels
        output = rule(channels, call, inputs, shapes)
        if output is None:
            return None
        for short in ("bias", "alpha"):  # the latter of PReLU
            weight = layer_weights(call.layer).get(short)
            if weight is not None and weight.shape[-1] == shapes[-1][-1]:
                channels.carry(f"{call.name}/{short}", -1, output)
        if not _by_channel(call.layer) or call.layer.activity_regularizer is not None:
            channels.hold(output)
        return output

    return careful


def _reshape(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """As of (C) to (1, 1, C), where the channels stay the last axis."""
    if shapes[0][-1] != shapes[1][-1]:
        return None
    # The layer names a number of channels: the same wherever it is called.
    return channels.carry(f"{call.name}/target_shape", -1, inputs[0])


def _gate(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """Products and the like, channel by channel; other axes may be broadcast."""
    last = {shape[-1] for shape in shapes}
    return channels.join(inputs) if len(last) == 1 else None


def _operator(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """Operators, which Keras records as layers: x + y, tf.nn.relu(x)."""
    symbol = getattr(call.layer, "symbol", "")
    if symbol in ("nn.relu", "nn.relu6") and len(inputs) == 1:
        return inputs[0]
    if symbol in ("__operators__.add", "math.add") and len(inputs) == 2:
        return channels.join(inputs) if len(set(shapes)) == 1 else None
    return None


# Not in the rules: what mixes channels, makes something of 0, or adds to the loss.
_INEXACT = (
    *(_layers.Softmax, _layers.ActivityRegularization),
    *(_layers.GaussianNoise, _layers.AlphaDropout),
)
# By these a channel is dead only if the network's function does not need it.
EXACT: dict[type, Rule] = {
    **{kind: _careful(rule) for kind, rule in RULES.items() if kind not in _INEXACT},
    **dict.fromkeys(
        (_layers.Multiply, _layers.Maximum, _layers.Minimum), _careful(_gate)
    ),
    _layers.Conv1DTranspose: _careful(RULES[_layers.Conv2DTranspose]),
    _layers.Reshape: _careful(_reshape),
    OperatorLayer: _operator,
}
