"""The error about layers and operators without a known linear part."""

from collections.abc import Collection

from tf_synflow.flow import operators
from tf_synflow.network import Call, Network, Shape


def keep_shapes(network: Network, calls: list[Call]) -> bool:
    """Whether a layer can be taken for the identity in all of its calls."""
    return all(len(set(_shapes(network, c))) == 1 and len(c.inputs) == 1 for c in calls)


def _shapes(network: Network, call: Call) -> list[Shape]:
    """The shapes of a call's inputs, then those of its outputs."""
    return [network.shapes[number] for number in (*call.inputs, *call.outputs)]


def refusal(
    network: Network,
    unknown: dict[str, list[Call]],
    exclude: Collection[str] | None,
    numbers: Collection[int],
) -> str:
    """Names layers without a known linear part, each with a way out that works."""
    # Layers of one class with the same way out share a sentence.
    alike: dict[tuple[str, str, str, str, bool], list[str]] = {}
    for name, calls in unknown.items():
        what, way = _way_out(calls[0])
        why = operators.why_unknown(network, calls[0], numbers)
        so, may = "so SynFlow cannot see through {}", False
        if name in (exclude or ()):
            shapes = _shapes(network, calls[0])
            so = f"and {{}} cannot be taken for the identity: the shapes are {shapes}"
        else:
            may = exclude is not None and keep_shapes(network, calls)
        alike.setdefault((what, why, so, way, may), []).append(name)
    sentences = []
    for (what, why, so, way, may), names in alike.items():
        has, it = ("has", "it") if len(names) == 1 else ("have", "them")
        if may:
            way += f", or exclude {it} (exclude={names}), which takes {it} for the "
            way += "identity"
        sentences.append(
            f"{what.format('s' * (len(names) > 1), ', '.join(map(repr, names)))} {has} "
            f"no known linear part{why}, {so.format(it)}. {way}"
        )
    return ". ".join(sentences)


def _way_out(call: Call) -> tuple[str, str]:
    """What an unknown layer is, with gaps for an "s" and for names; and what to do."""
    kind = call.class_name
    if kind in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "Operator"):
        name = getattr(call.layer, "title", getattr(call.layer, "symbol", kind))
        return (
            f"operator{{}} {{}} ({name})",
            "Write it as a layer: one of Keras, keras.layers.ReLU()(x), or one of your "
            "own, with tf_synflow.register_linear_part",
        )
    if kind == "Lambda":
        return (
            "layer{} {} (Lambda)",
            "Apply the function's operators to the tensors themselves (x = 2 * x), and "
            "SynFlow reads them one by one. Or write the function as a layer class "
            "of your own and say what its linear part is: "
            "tf_synflow.register_linear_part(YourLayer, rule)",
        )
    return (
        f"layer{{}} {{}} ({kind})",
        f"Say what the linear part is: tf_synflow.register_linear_part({kind}, rule)",
    )
