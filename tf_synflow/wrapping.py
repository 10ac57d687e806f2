"""Masks in and out of models: tfmot wrappers, constraints, plain models again."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_synflow._compat import PruneLowMagnitude as TfmotWrapper
from tf_synflow._compat import keras, reads_old_format, tf, tfmot
from tf_synflow.copying import copy_model, same_layer
from tf_synflow.graph import Graph, flatten, layer_weights, named_weights
from tf_synflow.masks import Masks

_KERNELS = {
    keras.layers.Dense: "kernel",
    keras.layers.Conv1D: "kernel",
    keras.layers.Conv2D: "kernel",
    keras.layers.Conv3D: "kernel",
    keras.layers.Conv2DTranspose: "kernel",
    keras.layers.Conv3DTranspose: "kernel",
    keras.layers.SeparableConv1D: "pointwise_kernel",
    keras.layers.SeparableConv2D: "pointwise_kernel",
}


class PruneLowMagnitude(TfmotWrapper):
    """tfmot's wrapper, which also passes on what a layer gives besides its output.

    tfmot's runs `layer.call` and so skips what Keras does around a call. What Keras has
    to know of the layer, the wrapper says of itself here: how the layer treats Keras
    masks, its activity regularizer, its state between batches.

    It is saved under tfmot's name, so tfmot alone can read the files.
    """

    __module__ = TfmotWrapper.__module__

    def __init__(self, layer: Any, *args: Any, **kwargs: Any):
        """Wraps a layer.

        Args:
          layer: The layer, not wrapped.
          *args: What tfmot's wrapper takes.
          **kwargs: What tfmot's wrapper takes.
        """
        super().__init__(layer, *args, **kwargs)
        self._activity_regularizer = layer.activity_regularizer
        self._autocast = layer._autocast
        self.stateful = layer.stateful
        self.supports_masking = layer.supports_masking
        spec = layer._call_spec
        self._call_spec.expects_mask_arg = spec.expects_mask_arg
        self._call_spec._context_arg_defaults["training"] = spec.default_training_arg

    # tfmot's leaves out what the wrapper adds when it is called.
    losses = keras.layers.Layer.losses

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The Keras mask that the layer hands on."""
        return self.layer.compute_mask(inputs, mask)

    def reset_states(self, *args: Any) -> None:
        """Resets the state of a layer that keeps one between batches."""
        self.layer.reset_states(*args)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes a wrapper from what `get_config` gives."""
        if reads_old_format():
            config = {**config, "layer": _in_old_form(config["layer"])}
        return super().from_config(config)


def _in_old_form(config: Any) -> Any:
    """The configuration of a wrapped layer as the reader of .h5 files understands it.

    Wrappers write the new form, where `class_name` is "Own" and `registered_name` is
    "package>Own", and a function is a dictionary. The old form has "package>Own" for
    `class_name`, and a function's name.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(map(_in_old_form, config))
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "function":
        return config["config"]
    config = {key: _in_old_form(value) for key, value in config.items()}
    if config.get("registered_name"):
        config["class_name"] = config["registered_name"]
    return config


class KeepPruned(keras.constraints.Constraint):
    """Zeroes pruned weights after each update, so that nobody sees them otherwise.

    Keras optimizers apply a variable's constraint inside the training step, after the
    update; so the zeros hold for whoever looks, whatever the order of callbacks, in
    `train_on_batch` and in custom loops.
    """

    def __init__(self, mask: Any, other: Any = None):
        """Makes the constraint.

        Args:
          mask: Variable of the weight's shape and dtype, 1 where it is kept.
          other: The constraint that the weight had before, applied first.
        """
        self.mask = mask
        self.other = other

    def __call__(self, w: Any) -> Any:
        """The constrained weight."""
        w = w if self.other is None else self.other(w)
        # Not w * mask, which is NaN where a diverged weight is.
        return tf.where(tf.cast(self.mask, tf.bool), w, tf.zeros_like(w))


def constrain(variable: Any, mask: Any) -> bool:
    """Gives a variable the constraint that keeps its pruned weights zero.

    Args:
      variable: The weight: a plain, distributed or autocast variable.
      mask: Variable of its shape, 1 where it is kept.

    Returns:
      Whether that is new to the variable: a training function traced before does not
      know of it.
    """
    old = variable.constraint
    if isinstance(old, KeepPruned):
        if old.mask is mask:
            return False
        old = old.other
    constraint = KeepPruned(mask, old)
    variable = getattr(variable, "_variable", variable)  # an AutoCastVariable's own
    for component in getattr(variable, "values", [variable]):
        component._constraint = constraint
    return True


def zero_pruned(variable: Any, mask: Any) -> None:
    """Sets pruned weights to zero now."""
    kept = tf.cast(tf.identity(mask), tf.bool)
    value = tf.identity(variable)
    variable.assign(tf.where(kept, value, tf.zeros_like(value)))


def masked_weights(graph: Graph) -> dict[str, tuple[Any, Any]]:
    """Name to (weight variable, mask variable) of every pruned weight of a model.

    A mask is in the wrapper of its layer; or, where a plain model was pruned inside
    `fit`, in the constraint of the weight.
    """
    found = {}
    for call in graph.calls:
        wrapped = call.wrapper.pruning_vars if call.wrapper else ()
        masks = {id(weight): mask for weight, mask, _ in wrapped}
        for short, variable in layer_weights(call.layer).items():
            if isinstance(variable.constraint, KeepPruned):
                masks.setdefault(id(variable), variable.constraint.mask)
            if id(variable) in masks:
                found[f"{call.name}/{short}"] = (variable, masks[id(variable)])
    return found


def wrapped_weights(graph: Graph) -> set[int]:
    """The ids of the weights that a wrapper masks whenever its layer is called."""
    wrappers = [call.wrapper for call in graph.calls if call.wrapper is not None]
    return {id(weight) for w in wrappers for weight, _, _ in w.pruning_vars}


def masks_of(graph: Graph) -> Masks:
    """The masks of a model laid flat; none if nothing is pruned.

    They describe the weights as they are; see `revived`.
    """
    wrapped, masks = wrapped_weights(graph), {}
    for name, (weight, mask) in masked_weights(graph).items():
        masks[name] = mask.numpy().astype(bool)
        if id(weight) not in wrapped:
            masks[name] |= weight.numpy() != 0
    return masks


def revived(graph: Graph) -> int:
    """How many weights were pruned inside `fit` and are not zero now.

    A plain model computes with whatever is loaded into it, and weights from before
    pruning may be. A wrapper zeroes what its mask says before it uses a weight.
    """
    masks, pairs = masks_of(graph), masked_weights(graph)
    return sum(
        int(np.count_nonzero(masks[name] & (mask.numpy() == 0)))
        for name, (_, mask) in pairs.items()
    )


def hold(graph: Graph) -> bool:
    """Has the pruned weights of a model kept at zero by every training step.

    Returns:
      Whether that is new to a weight; see `constrain`.
    """
    new = [constrain(w, mask) for w, mask in masked_weights(graph).values()]
    for call in graph.calls:
        if call.wrapper is not None:
            # At -1 tfmot stops training and demands its own callback.
            step = call.wrapper.pruning_step
            step.assign(tf.maximum(step, 0))
    return any(new)


def prunable_weights(layer: Any) -> dict[str, Any]:
    """The weights of a layer that tfmot can mask.

    Args:
      layer: A built layer, no wrapper.

    Returns:
      Short name to variable; none if there are none.
    """
    if type(layer) in _KERNELS:
        own = [getattr(layer, _KERNELS[type(layer)])]
    elif hasattr(layer, "get_prunable_weights"):
        own = layer.get_prunable_weights()
    else:
        own = []
    wanted = {id(variable) for variable in own}
    return {s: v for s, v in layer_weights(layer).items() if id(v) in wanted}


def get_masks(model: Any) -> Masks:
    """The masks of a pruned model.

    Args:
      model: A model that `prune` or `apply_masks` gave, or one loaded from its file; or
        a plain model that `PruningCallback(ratio=...)` pruned inside `fit`.

    Returns:
      Name ("conv1/kernel") to boolean array of the weight's shape, True where it is
      kept, in the order in which the model applies its layers.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It has no masks.
    """
    masks = masks_of(flatten(model))
    if not masks:
        raise ValueError(
            f"model {model.name!r} has no masks: it was never pruned, or has been "
            "stripped. (A plain model that PruningCallback(ratio=...) pruned has its "
            "masks until it is saved: save them beside it with save_masks)"
        )
    return masks


def apply_masks(model: Any, masks: Mapping[str, np.ndarray]) -> Any:
    """Gives a copy of a model that is pruned by the masks.

    Args:
      model: A built Sequential or functional tf_keras model, pruned or not. It is not
        changed, and shares nothing with what is returned.
      masks: Name ("conv1/kernel") to array of the weight's shape, True or 1 where it is
        kept. Weights that are not named are not pruned. For a model that is pruned
        already, the masks may remove more but not bring weights back.

    Returns:
      A new, uncompiled model: tfmot `PruneLowMagnitude` wrappers around the layers
      named, masks written, weights already sparse.

    Raises:
      TypeError: `model` is no tf_keras model or `masks` no mapping.
      ValueError: A name, shape or value is wrong, or a pruned weight would come back.
    """
    graph = flatten(model)
    if not isinstance(masks, Mapping):
        raise TypeError(
            "masks must be a mapping of weight names to arrays, as get_masks or "
            f"load_masks gives, got {type(masks).__name__}"
        )
    return rebuilt(model, _checked(graph, masks))


def strip(model: Any) -> Any:
    """Gives the plain Keras model that is left of a pruned one.

    Args:
      model: A pruned model (a plain one is copied). It is not changed.

    Returns:
      A new, uncompiled model without wrappers, which needs nothing but Keras to load.
      Its pruned weights are zero; nothing keeps them so if it is trained further.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It is subclassed or not built.
    """
    masks = masks_of(flatten(model))
    plain = rebuilt(model, masks, wrap=False)
    variables = named_weights(flatten(plain))
    for name, mask in masks.items():
        left = np.count_nonzero(variables[name].numpy()[~mask])
        if left:
            raise AssertionError(f"{left} pruned weights of {name!r} are not zero")
    return plain


def _checked(graph: Graph, masks: Mapping[str, np.ndarray]) -> Masks:
    """The masks as boolean arrays in the model's order, joined with those it has."""
    if not masks:
        raise ValueError("masks is empty: there is nothing to prune by")
    now = masks_of(graph)
    variables = {
        f"{call.name}/{short}": variable
        for call in graph.calls
        for short, variable in prunable_weights(call.layer).items()
    }
    unknown = [name for name in masks if name not in variables]
    if unknown:
        raise ValueError(
            f"masks name the weights {unknown}, but the model has no such weights that "
            f"can be pruned; it has {list(variables)}"
        )
    joined = {}
    for name, variable in variables.items():
        if name not in masks:
            if name in now:
                joined[name] = now[name]
            continue
        mask = np.asarray(masks[name])
        if mask.shape != tuple(variable.shape):
            raise ValueError(
                f"the mask of {name!r} has shape {mask.shape}, but the weight has "
                f"shape {tuple(variable.shape)}"
            )
        if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
            raise ValueError(
                f"the mask of {name!r} must hold only True and False (or 1 and 0), got "
                f"dtype {mask.dtype} with values like {mask.ravel()[:3].tolist()}"
            )
        joined[name] = mask.astype(bool)
        if name in now and (joined[name] & ~now[name]).any():
            raise ValueError(
                f"the mask of {name!r} keeps weights that the model has pruned "
                "already; their values are gone. Apply the masks to the original model"
            )
    return joined


def rebuilt(
    model: Any,
    masks: Masks,
    wrap: bool = True,
    make: Callable[[Any], Any] = same_layer,
    **more: Any,
) -> Any:
    """A copy of a model, layer by layer, the masked weights wrapped and sparse.

    Args:
      model: A built model.
      masks: Name to mask, of the shapes in the copy.
      wrap: Whether the masks are written into wrappers. Defaults to True.
      make: See `copy_model`.
      **more: Arguments of `copy_model`.
    """
    masked: dict[int, Masks] = {}
    for call in flatten(model).calls:
        for short in layer_weights(call.layer):
            if f"{call.name}/{short}" in masks:
                own = masked.setdefault(id(call.layer), {})
                own[short] = masks[f"{call.name}/{short}"]

    def wrapped(original: Any, layer: Any) -> Any:
        own = masked.get(id(original)) if wrap else None
        if own is None:
            return None
        if "training" in inspect.getfullargspec(layer.call).kwonlyargs:
            raise ValueError(
                f"layer {layer.name!r} ({type(layer).__name__}) takes `training` by "
                "keyword only, and tfmot's wrapper would not pass it on; write "
                "call(self, inputs, training=None), without the *"
            )
        # It casts the inputs of its layer, and would by the policy that is global now.
        return PruneLowMagnitude(layer, _schedule(own), dtype=layer.dtype_policy)

    result, copies = copy_model(model, make, wrapped, **more)
    with model.distribute_strategy.scope():
        for original, layer, wrapper in copies:
            _write(layer, wrapper, masked.get(id(original), {}))
    return result


def _schedule(masks: Masks) -> Any:
    """A tfmot schedule that records the sparsity and never fires.

    Training steps are counted from 1, so a schedule for step 0 only never changes the
    masks. tfmot's own classes are the only ones that survive a save and a load, and
    they want a sparsity below 1.
    """
    kept = sum(int(mask.sum()) for mask in masks.values())
    size = sum(mask.size for mask in masks.values())
    sparsity = min(1 - kept / size, float(np.nextafter(1, 0)))
    return tfmot.sparsity.keras.ConstantSparsity(
        sparsity, begin_step=0, end_step=0, frequency=1
    )


def _write(layer: Any, wrapper: Any, masks: Masks) -> None:
    """Zeroes the pruned weights of a copied layer, and writes its masks."""
    variables = layer_weights(layer)
    for short, mask in masks.items():
        value = variables[short].numpy()
        variables[short].assign(np.where(mask, value, np.zeros_like(value)))
    if wrapper is None:
        return
    for weight, mask, _ in wrapper.pruning_vars:
        short = next(s for s, variable in variables.items() if variable is weight)
        if short in masks:
            mask.assign(masks[short].astype(mask.dtype.as_numpy_dtype))
        constrain(weight, mask)
    # -1 makes tfmot demand its own callback; these masks need no step to be counted.
    wrapper.pruning_step.assign(0)
