"""Makes copies of a model: with masks in tfmot's wrappers, or plain with zeros."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_synflow.keras2.constraints import (
    constrain,
    mask_variable,
    write_into_settings,
)
from tf_synflow.keras2.copying import copy_model
from tf_synflow.keras2.imports import TfmotWrapper, keras, reads_old_format, tfmot
from tf_synflow.keras2.weights import weights_like, wrappable
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network
from tf_synflow.network.copies import Rebuilt


class PruneLowMagnitude(TfmotWrapper):
    """tfmot's wrapper, which here also passes on masks, losses and states of a layer.

    tfmot's own class runs `layer.call`, and so skips what Keras does around a call.
    This wrapper tells Keras the same about itself as the layer does: how it treats
    masks of time steps, its activity regularizer, its state between batches.

    It is saved under the name of tfmot's class, so tfmot can read the files without
    tf_synflow.
    """

    __module__ = TfmotWrapper.__module__

    def __init__(self, layer: Any, *args: Any, **kwargs: Any):
        """Wraps a layer.

        Args:
          layer: The layer, not wrapped.
          *args: Positional arguments of tfmot's wrapper.
          **kwargs: Keyword arguments of tfmot's wrapper.
        """
        super().__init__(layer, *args, **kwargs)
        self._activity_regularizer = layer.activity_regularizer
        self._autocast = layer._autocast
        self.stateful = layer.stateful
        self.supports_masking = layer.supports_masking
        spec = layer._call_spec
        self._call_spec.expects_mask_arg = spec.expects_mask_arg
        self._call_spec._context_arg_defaults["training"] = spec.default_training_arg

    # tfmot's property leaves out the losses that the wrapper adds when it is called.
    losses = keras.layers.Layer.losses

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of time steps that the layer passes on."""
        return self.layer.compute_mask(inputs, mask)

    def reset_states(self, *args: Any) -> None:
        """Resets the state of a layer that keeps one between batches."""
        self.layer.reset_states(*args)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes a wrapper from the configuration that `get_config` returned."""
        if reads_old_format():
            config = {**config, "layer": _in_old_form(config["layer"])}
        return super().from_config(config)


def _in_old_form(config: Any) -> Any:
    """The configuration of a wrapped layer as the reader of .h5 files understands it.

    Wrappers write the new form: `class_name` is "Own", `registered_name` is
    "package>Own", and a function is a dictionary. In the old form, `class_name` is
    "package>Own", and a function is its name.
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


def rebuild(
    network: Network,
    masks: Masks,
    *,
    hold: bool = True,
    make: Callable[[Any], Any] | None = None,
    weights: Callable[[Any], bool] | None = None,
    inputs: Callable[[Any], list[tuple] | None] | None = None,
) -> Rebuilt:
    """Copies a model, layer by layer, and prunes the weights that have masks.

    Args:
      network: The model, which is not changed.
      masks: Name to mask, with the shape that the weight has in the copy.
      hold: Whether the copy holds the masks, in wrappers and constraints. Defaults to
        True.
      make: See `copy_model`.
      weights: See `copy_model`.
      inputs: See `copy_model`.

    Raises:
      ValueError: See `copy_model`; or tfmot cannot wrap a layer.
    """
    paths = {id(call.layer): call.name for call in reversed(network.calls)}
    own = {
        id(call.layer): {
            short: masks[f"{call.name}/{short}"]
            for short in call.weights
            if f"{call.name}/{short}" in masks
        }
        for call in network.calls
    }

    def wrapped(original: Any, layer: Any) -> Any:
        if not hold or not own.get(id(original)) or not wrappable(original):
            return None
        if "training" in inspect.getfullargspec(layer.call).kwonlyargs:
            raise ValueError(
                f"layer {layer.name!r} ({type(layer).__name__}) takes `training` by "
                "keyword only, and tfmot's wrapper would not pass it on; write "
                "call(self, inputs, training=None), without the *"
            )
        # The wrapper casts the inputs of its layer. By default it would use the global
        # policy.
        schedule = _schedule(own[id(original)])
        return PruneLowMagnitude(layer, schedule, dtype=layer.dtype_policy)

    model, copies = copy_model(
        network, make=make, wrap=wrapped, weights=weights, inputs=inputs
    )
    found: dict[str, Any] = {}
    with network.model.distribute_strategy.scope():
        for original, layer, wrapper in copies:
            variables = weights_like(original, layer)
            masks_here = own.get(id(original), {})
            _write(variables, masks_here)
            if wrapper is not None:
                _hold_in_wrapper(variables, wrapper, masks_here)
            elif hold and masks_here:
                for short, mask in masks_here.items():
                    constrain(short, variables[short], mask_variable(mask))
                write_into_settings(layer)
            if id(original) in paths:
                path = paths[id(original)]
                found |= {f"{path}/{short}": v for short, v in variables.items()}
    return Rebuilt(model, {name: found[name] for name in network.weights})


def _schedule(masks: Masks) -> Any:
    """A tfmot schedule that records the sparsity and never fires.

    Training steps are counted from 1, so a schedule for step 0 only never changes the
    masks. Only tfmot's own schedule classes can be saved and loaded, and they need a
    sparsity below 1.
    """
    kept = sum(int(mask.sum()) for mask in masks.values())
    size = sum(mask.size for mask in masks.values())
    sparsity = min(1 - kept / size, float(np.nextafter(1, 0)))
    return tfmot.sparsity.keras.ConstantSparsity(
        sparsity, begin_step=0, end_step=0, frequency=1
    )


def _write(variables: dict[str, Any], masks: Masks) -> None:
    """Zeroes the pruned weights of a copied layer."""
    for short, mask in masks.items():
        value = variables[short].numpy()
        variables[short].assign(np.where(mask, value, np.zeros_like(value)))


def _hold_in_wrapper(variables: dict[str, Any], wrapper: Any, masks: Masks) -> None:
    """Writes the masks of a copied layer into its wrapper."""
    for weight, mask, _ in wrapper.pruning_vars:
        short = next(s for s, variable in variables.items() if variable is weight)
        if short in masks:
            mask.assign(masks[short].astype(mask.dtype.as_numpy_dtype))
        constrain(short, weight, mask)
    # At -1, tfmot demands its own callback. These masks need no count of steps.
    wrapper.pruning_step.assign(0)
