"""The linear part of each kind of layer: what the layer computes in the linear twin.

A linear part is a function `(layer, inputs, weights) -> outputs`. `inputs` is a float64
tensor (float32, if the policy has `dtype="float32"`) with non-negative entries and
batch size 1, or a list of such tensors for a layer with several inputs. `weights` maps
the short names of the layer's variables ("kernel", "gamma") to tensors of their
absolute values, of the same type. A linear part takes all shapes from these tensors.
The shapes of the layer may be wrong, because channels may have been taken out of the
tensors. A linear part must be linear in `inputs`, and `outputs` must be non-negative.

Layers of Keras are looked up by the name of their class, so one table serves Keras 2
and Keras 3. Layers of the user's own are looked up by their class.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tf_synflow.flow.parts import (
    attention,
    convolving,
    images,
    merging,
    normalising,
    pooling,
    projecting,
    recurrent,
    shapes,
)
from tf_synflow.frameworks import adapter_of_class, check_layer_class
from tf_synflow.network import Call
from tf_synflow.network.layer_weights import ATTENTION

LinearPart = Callable[[Any, Any, Mapping[str, Any]], Any]

LINEAR_PARTS: dict[str, LinearPart] = {
    # Activations, dropout and noise.
    **dict.fromkeys(
        (
            *("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "ThresholdedReLU"),
            *("Softmax", "Dropout", "SpatialDropout1D", "SpatialDropout2D"),
            *("SpatialDropout3D", "AlphaDropout", "GaussianDropout", "GaussianNoise"),
            *("ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom"),
            *("RandomTranslation", "RandomContrast", "RandomBrightness"),
            *("UnitNormalization", "Identity", "StochasticDepth", "Masking"),
            *("RandomHeight", "RandomWidth"),
        ),
        shapes.identity,
    ),
    # Shapes.
    "Flatten": shapes.flatten,
    "Reshape": shapes.reshape,
    "Permute": shapes.permute,
    "RepeatVector": shapes.repeat_vector,
    **dict.fromkeys(
        ("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"), shapes.zero_padding
    ),
    **dict.fromkeys(("Cropping1D", "Cropping2D", "Cropping3D"), shapes.cropping),
    **dict.fromkeys(("UpSampling1D", "UpSampling3D"), shapes.repeated),
    "UpSampling2D": images.upsampling,
    "Resizing": images.resizing,
    "CenterCrop": images.center_crop,
    "RandomCrop": images.random_crop,
    # Several signals. A product counts as the sum of its factors; see `operators`.
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Maximum", "Minimum"), merging.add),
    "Average": merging.average,
    "Concatenate": merging.concatenate,
    "CustomScaleLayer": merging.scaled_residual,
    # Normalisation and scales.
    "BatchNormalization": normalising.batch_normalization,
    "LayerNormalization": normalising.other_normalization,
    "GroupNormalization": normalising.other_normalization,
    "Rescaling": normalising.rescaling,
    "Normalization": normalising.normalization,
    "LayerScale": normalising.layer_scale,
    "RMSNormalization": normalising.rms_normalization,
    # Dense layers, embeddings and convolutions.
    "Dense": convolving.dense,
    "EinsumDense": projecting.einsum_dense,
    "Embedding": projecting.embedding,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), convolving.convolution),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
        convolving.transposed_convolution,
    ),
    **dict.fromkeys(
        ("DepthwiseConv1D", "DepthwiseConv2D"), convolving.depthwise_convolution
    ),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), convolving.separable_convolution
    ),
    # Pooling.
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D"), pooling.average_pooling),
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D"), pooling.max_pooling),
    "AveragePooling3D": pooling.average_pooling_3d,
    "MaxPooling3D": pooling.max_pooling_3d,
    **dict.fromkeys(
        (
            *("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
            "GlobalAveragePooling3D",
        ),
        shapes.global_average,
    ),
    **dict.fromkeys(
        ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"),
        shapes.global_maximum,
    ),
}

_REGISTERED: dict[type, LinearPart] = {}

# The outputs of these rules need no scaling: their largest entry is not above the
# largest entry of the inputs, nor much below it.
NEVER_GROW = frozenset(
    {
        *(shapes.identity, shapes.flatten, shapes.reshape, shapes.permute),
        *(shapes.repeat_vector, shapes.zero_padding, shapes.cropping, shapes.repeated),
        *(shapes.global_average, shapes.global_maximum),
        *(merging.average, merging.concatenate),
        *(pooling.average_pooling, pooling.max_pooling),
        *(pooling.average_pooling_3d, pooling.max_pooling_3d),
        *(images.upsampling, images.resizing, images.center_crop, images.random_crop),
    }
)

# These rules multiply each channel by a number, so their input needs no scaling.
SCALES = frozenset({normalising.batch_normalization})

# These rules are linear in the kernel too, so powers of two may scale the kernel.
LINEAR_IN_KERNEL = frozenset(
    {
        *(convolving.dense, convolving.convolution, projecting.einsum_dense),
        *(convolving.transposed_convolution, convolving.separable_convolution),
        *(convolving.depthwise_convolution, projecting.embedding),
    }
)

# These rules take the call as their first argument, because it has the arguments of the
# layer.
_WITH_CALL: dict[str, Callable[..., Any]] = {
    "MultiHeadAttention": attention.multi_head_attention,
    "GroupedQueryAttention": attention.multi_head_attention,
    **dict.fromkeys(("Attention", "AdditiveAttention"), attention.mean_of_values),
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU", "RNN"), recurrent.recurrent),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), recurrent.recurrent),
    "Bidirectional": recurrent.bidirectional,
    "ReversibleEmbedding": projecting.reversible_embedding,
}


def register_linear_part(layer_class: type, rule: LinearPart) -> None:
    """Tells SynFlow what the linear part of a layer class is.

    ```python
    # y = x * |scale|: the scale is kept; an offset would be left out
    tf_synflow.register_linear_part(LayerScale, lambda layer, x, w: x * w["scale"])
    ```

    Args:
      layer_class: A class of Keras layers. The rule holds for this class only: a
        subclass may compute something else, and needs a rule of its own.
      rule: A function `rule(layer, inputs, weights) -> outputs`. `inputs` is one tensor
        of shape `(1, ...)`, or a list of such tensors, with entries >= 0, of the
        policy's `dtype` (float64 by default). `weights` maps the short names of the
        layer's variables to tensors of their absolute values. `outputs` must be linear
        in `inputs` and >= 0.

    Raises:
      TypeError: `layer_class` is not a layer class, or `rule` is not callable.
    """
    check_layer_class(layer_class)
    if not callable(rule):
        raise TypeError(
            f"rule must be a function (layer, inputs, weights) -> outputs, got {rule!r}"
        )
    _REGISTERED[layer_class] = rule


def described(kind: str) -> str | None:
    """A sentence about the linear part of a kind of Keras layer; None if unknown."""
    if kind == "TimeDistributed":
        return "The rule of the layer inside, for each step by itself."
    rule = _WITH_CALL.get(kind) or LINEAR_PARTS.get(kind)
    return None if rule is None else inspect.getdoc(rule).splitlines()[0]


def rule_of(call: Call, product: bool = False) -> LinearPart | None:
    """The linear part of a call's layer; None if no linear part is known.

    Args:
      call: The call.
      product: Whether attention follows the setting "product"; see
        `parts.attention`. Defaults to False.
    """
    if type(call.layer) in _REGISTERED:
        return _REGISTERED[type(call.layer)]
    if call.kind in _WITH_CALL:
        rule = _WITH_CALL[call.kind]
        if product and rule is attention.multi_head_attention:
            return functools.partial(rule, call, product=True)
        return functools.partial(rule, call) if _cells_are_known(call) else None
    if call.kind == "TimeDistributed":
        return _time_distributed(call)
    rule = LINEAR_PARTS.get(call.kind)
    interpolates = rule in (images.upsampling, images.resizing)
    if interpolates and call.layer.interpolation not in images.INTERPOLATIONS:
        return None
    return rule


def _cells_are_known(call: Call) -> bool:
    """Whether the recurrent cells of a layer, if any, are all Keras's own.

    A layer whose first axis is the time steps (`time_major`) is not known either.
    """
    layers = [
        getattr(call.layer, name)
        for name in ("forward_layer", "backward_layer")
        if call.kind == "Bidirectional"
    ]
    kind_of = adapter_of_class(type(call.layer)).kind_of
    return all(
        kind_of(cell) in recurrent.CELLS and not getattr(layer, "time_major", False)
        for layer in layers or [call.layer]
        if hasattr(layer, "cell") or layers
        for cell in recurrent.cells_of(layer)
    )


def _time_distributed(call: Call) -> LinearPart | None:
    """The inner layer's rule, applied to each time step; None if it has no rule."""
    inner = call.layer.layer
    path = f"{inner.name}/"
    weights = {s.removeprefix(path): w for s, w in call.weights.items()}
    own = call._replace(
        kind=adapter_of_class(type(inner)).kind_of(inner),
        layer=inner,
        weights=weights,
    )
    rule = rule_of(own)
    if rule is None:
        return None
    return functools.partial(shapes.at_each_step, inner, path, rule)


def linear_weights(call: Call) -> Iterable[str]:
    """Short names of the weights that may be scaled by a power of two.

    If such a weight is scaled, the output of the layer is scaled by the same power.
    """
    if type(call.layer) in _REGISTERED:
        return ()
    if call.kind in ATTENTION:
        return attention.linear_weights(call)
    rule = LINEAR_PARTS.get(call.kind)
    return call.weights if rule in LINEAR_IN_KERNEL else ()


def is_registered(call: Call) -> bool:
    """Whether the user has registered a linear part for the class of a call's layer."""
    return type(call.layer) in _REGISTERED
