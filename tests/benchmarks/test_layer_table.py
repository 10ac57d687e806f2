"""The page on layers is what the rules say, for the Kerases that are installed."""

from pathlib import Path

import layer_table

PAGE = Path(__file__).parents[2] / "docs" / "layers.md"


def test_the_page_on_layers_is_not_stale():
    assert PAGE.read_text("utf-8") == layer_table.page(), (
        "run python scripts/benchmarks/layer_table.py --output=docs/layers.md"
    )


def test_layers_are_named_that_the_tables_know():
    known = {"EinsumDense", "MultiHeadAttention", "LSTM", "DepthwiseConv2D"}
    assert known <= layer_table.kinds(layer_table.keras2)
    assert layer_table.pruned("DepthwiseConv2D") == "on request: `depthwise_kernel`"
    assert layer_table.pruned("LayerNormalization") == ""
