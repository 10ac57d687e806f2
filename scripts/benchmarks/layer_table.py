"""Writes docs/layers.md: every layer of Keras, and what is done with it.

python scripts/benchmarks/layer_table.py --output=docs/layers.md

The table is made from the rules themselves. A test fails when the page is stale.
"""

import keras as keras3
from absl import app, flags

from tf_synflow.channels import needed
from tf_synflow.channels.heads import KIND
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.files.whole import write_text
from tf_synflow.flow import linear_parts
from tf_synflow.keras2.imports import keras as keras2
from tf_synflow.network.layer_weights import COMPOSITES, ON_REQUEST, PRUNABLE

OUTPUT = flags.DEFINE_string("output", "docs/layers.md", "File to write the page to.")

_HEAD = """# Layers

Every layer of Keras 2 and Keras 3, made from the library's own tables by

    python scripts/benchmarks/layer_table.py --output=docs/layers.md

- **Pruned**: the weights that have masks. "On request" means: if `layer_types=` of the
  policy names the layer's class. A weight inside a layer that holds others is named by
  its path, such as `mha/query/kernel` or `lstm/lstm_cell/recurrent_kernel`.
- **For SynFlow**: what the layer is in the linear twin, where every weight is its
  absolute value and every activation is the identity. SynFlow refuses a layer without
  an entry by name. Tell it more with `tf_synflow.register_linear_part`.
- **`shrink`**: whether channels are cut out of the layer. A layer without "yes" keeps
  all of its channels, and what it reads keeps them too; its masks stay.
- **Keras**: which of the two Kerases has the layer.

| layer | pruned | for SynFlow | `shrink` | Keras |
|---|---|---|---|---|
"""

_SHRINKS = {KIND: "heads, and units in them"}

# Base classes, and classes that are not layers of a network.
_NONE = {"Layer", "Wrapper", "InputLayer", "AbstractRNNCell", "InputSpec"}


def kinds(keras) -> set[str]:
    """Gives the names of all layer classes of a Keras."""
    found = [getattr(keras.layers, name) for name in dir(keras.layers)]
    return {
        kind.__name__
        for kind in found
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer)
    } - _NONE


def pruned(kind: str) -> str:
    """Says which weights of a layer have masks."""
    if kind in PRUNABLE:
        return ", ".join(f"`{name}`" for name in PRUNABLE[kind])
    if kind in ON_REQUEST:
        return "on request: " + ", ".join(f"`{name}`" for name in ON_REQUEST[kind])
    return "those of the layers inside" if kind in COMPOSITES else ""


def page() -> str:
    """Gives the text of the page."""
    first, second = kinds(keras2), kinds(keras3)
    rows = []
    for kind in sorted(first | second):
        has = [n for n, own in (("2", first), ("3", second)) if kind in own]
        seen = (linear_parts.described(kind) or "").replace("|", "\\|").rstrip(".")
        cut = "yes" if kind in needed.EXACT else _SHRINKS.get(kind, "")
        rows.append(
            f"| {kind} | {pruned(kind)} | {seen} | {cut} | {' and '.join(has)} |"
        )
    return _HEAD + "\n".join(rows) + "\n"


@in_one_line
def main(_) -> None:
    """Writes the page."""
    write_text(OUTPUT.value, page())


if __name__ == "__main__":
    app.run(main)
