"""TODO."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.constraints import constrain
from tf_synflow.keras2.copying import copy_model, same_layer
from tf_synflow.keras2.imports import PruneLowMagnitude as TfmotWrapper
from tf_synflow.keras2.imports import keras, reads_old_format, tfmot
from tf_synflow.keras2.reading import flatten, masked_weights
from tf_synflow.masks.types import Masks
from tf_synflow.network import Graph, layer_weights
from tf_synflow.pruning.masking import _in_old_form


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
