"""The linear twin of a network: the copy that SynFlow differentiates.

The twin of a model has the absolute values of its weights, no biases, the identity for
every activation, and the linear part of every normalisation; it computes in float64 on
an input of ones. Its output is the synaptic flow

    R = 1' (prod_l |W_l|) 1        (equation 2 of the reference, for a Dense chain)

that is, the sum over all paths from input to output of the product of the weights'
absolute values along the path.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tf_synflow import linear_parts
from tf_synflow._compat import tf
from tf_synflow.graph import Call, Graph, layer_weights


class LinearTwin:
    """The flow R of a model as a differentiable function of its |weights|."""

    def __init__(
        self, graph: Graph, names: Collection[str], exclude: Collection[str] = ()
    ):
        """Prepares the twin.

        Args:
          graph: The model, laid flat.
          names: The weights to differentiate by ("conv1/kernel"). The others are taken
            from the layers as they are now and held constant.
          exclude: Names of layers that may be passed over: one of them that has no
            known linear part is taken to be the identity.

        Raises:
          ValueError: A layer has no known linear part, or an input has no fixed shape.
        """
        self._graph = graph
        self._names = list(names)
        self._rules = [_rule(graph, call, exclude) for call in graph.calls]
        with tf.device("CPU"):
            self._inputs = [_ones(shape) for shape in graph.input_shapes]
            self._constants = {
                f"{call.name}/{short}": tf.constant(absolute(variable))
                for call in graph.calls
                for short, variable in layer_weights(call.layer).items()
                if f"{call.name}/{short}" not in self._names
            }
        self._traced = tf.function(self._flow_and_gradients, autograph=False)

    def flow(self, weights: Mapping[str, Any]) -> Any:
        """The synaptic flow R.

        Args:
          weights: Name to float64 tensor with entries >= 0, for each of the names.

        Returns:
          R, a scalar float64 tensor: the sum of all outputs of the twin.
        """
        weights = {**self._constants, **weights}
        signals = dict(zip(self._graph.inputs, self._inputs, strict=True))
        for call, rule in zip(self._graph.calls, self._rules, strict=True):
            own = {s: weights[f"{call.name}/{s}"] for s in layer_weights(call.layer)}
            inputs = [signals[number] for number in call.inputs]
            outputs = rule(call.layer, inputs if len(inputs) > 1 else inputs[0], own)
            signals.update(zip(call.outputs, tf.nest.flatten(outputs), strict=True))
        return tf.add_n([tf.reduce_sum(signals[n]) for n in self._graph.outputs])

    def _flow_and_gradients(self, tensors: list[Any]) -> tuple[Any, list[Any]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            flow = self.flow(dict(zip(self._names, tensors, strict=True)))
        zero = tf.UnconnectedGradients.ZERO
        return flow, tape.gradient(flow, tensors, unconnected_gradients=zero)

    def gradients(
        self, weights: Mapping[str, np.ndarray]
    ) -> tuple[float, dict[str, np.ndarray]]:
        """R and its gradient with respect to the weights.

        Args:
          weights: Name to float64 array with entries >= 0, for each of the names.

        Returns:
          R, and name to float64 array of dR/dw, the weight's shape.
        """
        # Always on the CPU: the same float64 program on any machine.
        with tf.device("CPU"):
            tensors = [tf.constant(weights[name]) for name in self._names]
            flow, gradients = self._traced(tensors)
        arrays = (gradient.numpy() for gradient in gradients)
        return float(flow), dict(zip(self._names, arrays, strict=True))


def absolute(variable: Any) -> np.ndarray:
    """|w| of a variable in float64."""
    return np.abs(variable.numpy().astype("float64"))


def _ones(shape: tuple[int | None, ...]) -> Any:
    if None in shape[1:]:
        raise ValueError(
            f"the model has an input of shape {shape}: SynFlow propagates one input of "
            "ones and needs every size but the batch's; rebuild the model with a fixed "
            "input shape, such as (224, 224, 3)"
        )
    return tf.ones((1, *shape[1:]), tf.float64)


def _rule(graph: Graph, call: Call, exclude: Collection[str]) -> linear_parts.Rule:
    """The rule for a call, or an error that names the layer and the ways out."""
    rule = linear_parts.find(call.layer)
    if rule is not None:
        return rule
    kind = type(call.layer).__name__
    shapes = [graph.shapes[number] for number in (*call.inputs, *call.outputs)]
    if call.name not in exclude:
        raise ValueError(
            f"layer {call.name!r} ({kind}) has no known linear part, so SynFlow cannot "
            f"see through it. Either exclude it (exclude=[{call.name!r}]), which takes "
            "it for the identity, or say what its linear part is: "
            f"tf_synflow.register_linear_part({kind}, rule)"
        )
    if len(shapes) != 2 or shapes[0] != shapes[1]:
        raise ValueError(
            f"layer {call.name!r} ({kind}) is excluded and has no known linear part, "
            f"but it cannot be taken for the identity: its shapes are {shapes}. Say "
            f"what its linear part is: tf_synflow.register_linear_part({kind}, rule)"
        )
    return linear_parts.identity
