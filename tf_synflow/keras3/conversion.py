"""Converts a Keras 3 model to a Keras 2 model, layer by layer.

Criteria that need data are computed in the Keras 2 model. Their scores need second
derivatives and float64. Keras 3 has both only on the TensorFlow backend: on other
backends, its BatchNormalization computes in float32. On these backends, files that
TensorFlow runs are also written from the Keras 2 model.

Each layer is created anew from the Keras 2 class of the same name. So a class of the
user's own cannot be converted. The new model has to compute the same as the original;
this is checked.
"""

import inspect
from typing import Any

import numpy as np

from tf_synflow.keras3.imports import keras
from tf_synflow.keras3.operations import Operator
from tf_synflow.keras3.reading import graph_of, is_mask, lay_flat
from tf_synflow.keras3.weights import kind_of
from tf_synflow.network import Call, Network, filled
from tf_synflow.network.copies import deep_graphs

# The end of many error messages.
_WHERE = "in Keras 2, where this is computed"

# Largest allowed difference between the outputs, over the largest output. In deep
# networks, kernels that sum in another order differ by 1e-5 or so. A different function
# differs by far more.
_TOLERANCE = 1e-2

# Settings that do not change a layer's outputs in inference mode.
_MEANINGLESS = {"autocast", "value_range", "seed"}

# Values of settings for what Keras 2 does anyway.
_USUAL = {"data_format": "channels_last", "rms_scaling": False}

# Layers with content from `adapt`, which Keras 2 would have to learn anew.
_ADAPTED = {"TextVectorization", "StringLookup", "IntegerLookup", "Discretization"}

# Settings that Keras 2 takes, although its constructors do not name them.
_UNNAMED = {"zero_output_for_mask"}

# Settings with another name in Keras 2.
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}


def as_tf_keras(network: Network) -> Any:
    """A Keras 2 model that computes the same as a Keras 3 model.

    Args:
      network: The Keras 3 model.

    Returns:
      A functional tf_keras model without nested models. A layer of a nested model has
      its path as its name, so that all weights have the same names as in `network`.

    Raises:
      ValueError: A layer cannot be converted (the error names it), or the new model
        does not compute the same.
    """
    from tf_synflow.keras2.imports import keras as keras2

    network = lay_flat(network.model, keras_masks=True)
    made: dict[int, Any] = {}
    names = input_names(network.model)
    tensors = {
        number: keras2.Input(
            network.shapes[number][1:],
            network.shapes[number][0],
            dtype=network.dtypes[number],
            name=name,
        )
        for number, name in zip(network.inputs, names, strict=True)
    }
    inputs = [tensors[number] for number in network.inputs]
    with deep_graphs(4 * len(network.calls)):
        for call in network.calls:
            outputs = _called(call, made, tensors)
            tensors.update(zip(call.outputs, outputs, strict=True))
        outputs = [tensors[number] for number in network.outputs]
        model = keras2.Model(inputs, outputs, name=network.name)
    for call in network.calls:
        if not isinstance(call.layer, Operator):
            _set_weights(call, made[id(call.layer)])
    model.output_names = output_names(network.model)
    _check_same(network, model)
    return model


def input_names(model: Any) -> list[str]:
    """The names of a Keras 3 model's inputs, in their order."""
    structure = graph_of(model)._inputs_struct
    if isinstance(structure, dict) and len(structure) == len(model.inputs):
        return sorted(structure)
    names = [tensor.name for tensor in model.inputs]
    layers = [tensor._keras_history.operation.name for tensor in model.inputs]
    return names if len(set(layers)) < len(layers) else layers


def output_names(model: Any) -> list[str]:
    """The names of a Keras 3 model's outputs, in their order."""
    structure = graph_of(model)._outputs_struct
    if isinstance(structure, dict) and len(structure) == len(model.outputs):
        return sorted(structure)
    return [tensor._keras_history.operation.name for tensor in model.outputs]


def _called(call: Call, made: dict[int, Any], tensors: dict[int, Any]) -> list[Any]:
    """The outputs of the Keras 2 counterpart of a call."""
    import tensorflow as tf

    known = {}
    if not isinstance(call.layer, Operator):
        if id(call.layer) not in made:
            made[id(call.layer)] = _counterpart(call)
        known = inspect.signature(made[id(call.layer)].call).parameters
    # `training` is left out here: as in Keras 3, it is set for the whole model. A mask
    # is left out if the layer takes none as an argument: the layer then gets the mask
    # from the layers before it.
    options = {
        key: value
        for key, value in call.options.items()
        if value is not None
        and key != "training"
        and not (is_mask(key, value) and key not in known)
    }
    arguments, options = filled(call.arguments, tensors), filled(options, tensors)
    if isinstance(call.layer, Operator):
        if call.kind == call.layer.title:
            raise ValueError(
                f"operator {call.name!r} ({call.kind}) does not exist {_WHERE}. Write "
                "it with other operations, or use a criterion that needs no data "
                '("synflow", "magnitude")'
            )
        return tf.nest.flatten(call.layer.call(*arguments, **options))
    return tf.nest.flatten(made[id(call.layer)](*arguments, **options))


def _counterpart(call: Call) -> Any:
    """A Keras 2 layer of the same class name and settings; its weights are not set."""
    found = _namesake(call)
    if found is None or call.kind in {*_ADAPTED, "Lambda"}:
        raise ValueError(
            f"layer {call.name!r} ({call.class_name}) cannot be made {_WHERE}. Use "
            "other layers of Keras's own, or a criterion that needs no data "
            '("synflow", "magnitude"), or a function of your own as the criterion, '
            "which gets the Keras 3 model"
        )
    if call.kind in ("TimeDistributed", "Bidirectional"):
        return _around(call, found)
    config = call.layer.get_config()
    known, defaults = _arguments(found), _arguments(type(call.layer))
    settings = {}
    for key, value in config.items():
        key = _RENAMED.get((call.kind, key), key)
        if key.endswith(("_constraint", "_regularizer")):
            continue
        if key.endswith("_initializer"):
            settings[key] = "zeros"
        elif key == "dtype":
            settings[key] = call.layer.dtype_policy.name
        elif key in ("activation", "recurrent_activation"):
            settings[key] = _activation(call, getattr(call.layer, key))
        elif isinstance(value, dict) and "class_name" in value:
            raise ValueError(
                f"layer {call.name!r} ({call.kind}) holds a {value['class_name']} as "
                f"its {key!r}, and what it holds cannot be made {_WHERE}"
            )
        elif key in known or key in _UNNAMED:
            settings[key] = value
        elif key not in _MEANINGLESS and value not in (
            *((defaults[key],) if key in defaults else ()),
            *((_USUAL[key],) if key in _USUAL else ()),
        ):
            raise ValueError(
                f"layer {call.name!r} ({call.kind}) has {key}={value!r}, which does "
                f"not exist {_WHERE}"
            )
    return found(**{**settings, "name": call.name, "trainable": True})


def _around(call: Call, found: type) -> Any:
    """The counterpart of a layer that holds another layer, or two directions of one."""
    if call.kind == "TimeDistributed":
        inner, settings = call.layer.layer, {}
    else:
        inner = call.layer.forward_layer
        settings = {"merge_mode": call.layer.merge_mode}
        same = [
            {**part.get_config(), "name": "", "go_backwards": False}
            for part in (inner, call.layer.backward_layer)
        ]
        if same[0] != same[1] or inner.go_backwards:
            raise ValueError(
                f"layer {call.name!r} (Bidirectional) has a backward layer of its own, "
                f"which cannot be made {_WHERE}"
            )
    name = inner.name.removeprefix("forward_") if settings else inner.name
    own = call._replace(name=name, kind=kind_of(inner), layer=inner)
    return found(_counterpart(own), name=call.name, **settings)


def _arguments(layer_class: type) -> dict[str, Any]:
    """The arguments of the constructors of a class and its bases, with defaults."""
    found: dict[str, Any] = {}
    for kind in layer_class.__mro__:
        if "__init__" in vars(kind):
            for name, parameter in inspect.signature(kind.__init__).parameters.items():
                found.setdefault(name, parameter.default)
    return found


def _namesake(call: Call) -> type | None:
    """The Keras 2 class that computes the same as the class of a layer, or None."""
    from tf_synflow.keras2.attention import ScaledAttention
    from tf_synflow.keras2.imports import keras as keras2

    kind = call.kind
    if hasattr(call.layer, "query_factor") and kind is not None:
        return ScaledAttention

    applications = keras2.src.applications
    special = {
        "LayerScale": applications.convnext.LayerScale,
        "StochasticDepth": applications.convnext.StochasticDepth,
        "CustomScaleLayer": applications.inception_resnet_v2.CustomScaleLayer,
    }
    return special.get(kind) or getattr(keras2.layers, kind or "", None)


def _activation(call: Call, function: Any) -> Any:
    """The Keras 2 function that computes the same as an activation of Keras 3."""
    from tf_synflow.keras2.imports import keras as keras2

    for same in (hard_sigmoid, hard_silu, leaky_relu):
        if function is getattr(keras.activations, same.__name__):
            # When the copy is copied again, the function is found by its registered
            # name.
            return keras2.saving.register_keras_serializable("tf_synflow")(same)
    name = getattr(function, "__name__", type(function).__name__)
    name = {"silu": "swish"}.get(name, name)
    own = getattr(function, "__module__", "").startswith("keras.")
    found = getattr(keras2.activations, name or "", None) if own else None
    if found is None:
        raise ValueError(
            f"layer {call.name!r} ({call.kind}) has the activation {name}, which does "
            f"not exist {_WHERE}. Use relu, gelu, silu or the like, or a layer after it"
        )
    return found


def hard_sigmoid(x: Any) -> Any:
    """The hard_sigmoid of Keras 3. Keras 2 has another function of this name."""
    import tensorflow as tf

    return tf.nn.relu6(x + 3) / 6


def hard_silu(x: Any) -> Any:
    """The hard_silu of Keras 3."""
    return x * hard_sigmoid(x)


def leaky_relu(x: Any) -> Any:
    """The leaky_relu of Keras 3."""
    import tensorflow as tf

    return tf.nn.leaky_relu(x, 0.2)


def _set_weights(call: Call, layer: Any) -> None:
    from tf_synflow.keras2.weights import layer_weights

    made = layer_weights(layer)
    pairs = list(zip(call.weights, made, strict=False))
    if set(made) == set(call.weights):
        pairs = [(short, short) for short in made]
    for own, short in pairs:
        value = call.weights[own].numpy()
        if len(made) != len(call.weights) or made[short].shape != value.shape:
            raise ValueError(
                f"layer {call.name!r} ({call.kind}) has weights of other shapes "
                f"{_WHERE}"
            )
        made[short].assign(value)
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def _check_same(network: Network, model: Any) -> None:
    """Compares the outputs of both models on noise, if noise fits the inputs."""
    shapes = [network.shapes[number] for number in network.inputs]
    kinds = [network.dtypes[number] for number in network.inputs]
    if any(None in shape[1:] for shape in shapes) or not all(
        kind.startswith("float") for kind in kinds
    ):
        return
    generator = np.random.default_rng(0)
    inputs = [
        generator.random((shape[0] or 2, *shape[1:])).astype(kind)
        for shape, kind in zip(shapes, kinds, strict=True)
    ]
    for array in inputs:  # some entries are 0, like padding
        array[:, -1:] = 0
    want = outputs_of(network.model, inputs)
    have = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    have = [np.asarray(part) for part in (have if len(want) > 1 else [have])]
    for one, other in zip(want, have, strict=True):
        with np.errstate(invalid="ignore"):
            off = np.abs(one - other).max(initial=0) / max(
                np.abs(one).max(initial=0), 1
            )
        if one.shape != other.shape or off > _TOLERANCE:
            raise ValueError(
                f"the copy of model {network.name!r} in Keras 2, in which this is "
                f"computed, gives other outputs: they differ by {off:.3g} of the "
                "largest. A layer of it means something else there"
            )


def outputs_of(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a Keras 3 model in inference mode, in a flat list."""
    arranged = keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, inputs)
    outputs = model(arranged, training=False)
    return [keras.ops.convert_to_numpy(part) for part in keras.tree.flatten(outputs)]
