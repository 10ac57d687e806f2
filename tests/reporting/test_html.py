"""Pages of HTML, read by the standard library's parser."""

import re

import pytest
from html_pages import Page, fetches_nothing
from nets import layers, randomise, residual_net

import tf_synflow
from tf_synflow.keras2.imports import keras
from tf_synflow.reporting.html_page import element, join
from tf_synflow.reporting.report import Report

HOSTILE = '</td></table><script>alert(1)</script><img src="http://x.example/a">&"\''


def made(report, folder):
    report.to_html(folder / "page.html")
    text = (folder / "page.html").read_text("utf-8")
    return text, Page(text)


def report_of_a_collapsed_net():
    model = randomise(residual_net())
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    masks["conv1/kernel"][..., 1] = False
    masks["conv2/kernel"][:] = False
    return tf_synflow.report(tf_synflow.apply_masks(model, masks))


def test_the_page_has_the_numbers_of_the_report(tmp_path):
    found = report_of_a_collapsed_net()
    text, page = made(found, tmp_path)
    fetches_nothing(text, page)
    titles, *rows = page.tables[0]
    columns = [title[1] for title in titles]
    assert len(rows) == len(found.layers) and len(set(columns)) == len(columns)
    for number, (row, layer) in enumerate(zip(rows, found.layers, strict=True), 1):
        values = {
            column: attributes["data-value"]
            for column, (attributes, _) in zip(columns, row, strict=True)
        }
        assert values == {
            "#": str(number),
            "weight": layer["name"],
            "shape": "x".join(map(str, layer["shape"])),
            "kept": str(layer["kept"]),
            "of": str(layer["size"]),
            "density": repr(layer["density"]),
            "on a path": str(layer["effective"]),
            "alive channels": str(layer["channels"] - layer["dead_channels"]),
            "of channels": str(layer["channels"]),
            "multiply-adds": str(layer["macs"]),
            "those of kept weights": str(layer["sparse_macs"]),
        }
    said = " ".join(page.words)
    totals = found.totals
    assert f"{totals['prunable']['kept']} of {totals['prunable']['size']}" in said
    assert f"After shrink {totals['shrunk']['parameters']} parameters" in said
    assert "No weight is kept in 1 tensors: conv2/kernel." in said
    assert "Input and output are connected." in said


def test_the_effective_weights_are_shown_as_a_number_of_weights(tmp_path):
    found = report_of_a_collapsed_net()
    rows = made(found, tmp_path)[1].tables[0][1:]
    # conv1 lost a channel, so 16 of the 48 weights of conv3 lie on no path.
    assert {row[1][1]: row[6][1] for row in rows}["conv3/kernel"] == "32"


def test_bars_are_as_long_as_the_logarithm_of_the_density(tmp_path):
    layer = {
        **dict.fromkeys(("macs", "sparse_macs", "effective", "dead_channels")),
        **{"effective_density": None, "channels": 4, "shape": [10, 100], "size": 1000},
    }
    kept = [1000, 100, 10, 1, 0]
    rows = [
        {**layer, "name": f"layer{n}", "kept": n, "density": n / 1000} for n in kept
    ]
    totals = report_of_a_collapsed_net().totals
    _, page = made(Report("net", rows, totals, []), tmp_path)
    # A bar of a density of a thousandth has a length, so bars begin a decade lower.
    fills = [a["style"] for _, a in page.elements if a.get("class") == "fill"]
    assert fills == [f"width:{n}%" for n in ("100.0", "75.0", "50.0", "25.0", "0.0")]
    assert "from 0.01 % to 100 %" in " ".join(page.words)
    marked = [a.get("class") for tag, a in page.elements if tag == "tr"]
    assert marked == [None, None, None, None, None, "empty"]


def test_hostile_names_are_text(tmp_path):
    found = report_of_a_collapsed_net()
    rows = [{**row, "name": HOSTILE} for row in found.layers]
    totals = {**found.totals, "emptied": [HOSTILE]}
    text, page = made(Report(HOSTILE, rows, totals, [HOSTILE]), tmp_path)
    fetches_nothing(text, page)
    assert len(page.tables) == 1 and len(page.tables[0]) == len(rows) + 1
    assert page.tables[0][1][1] == [{"data-value": HOSTILE, "class": "text"}, HOSTILE]
    assert page.words.count(HOSTILE) == len(rows) + 2  # beside the title and the note
    assert "$" not in re.sub(r"(?s)<script>.*</script>", "", text)


def test_a_name_with_a_dollar_is_no_placeholder(tmp_path):
    found = report_of_a_collapsed_net()
    _, page = made(
        Report("$body $title ${style}", found.layers, found.totals, []), tmp_path
    )
    assert page.words.count("$body $title ${style}") == 1


class Odd(layers.Dense):
    """A class of the user's own: what it does with its kernel is not known."""


def test_what_is_not_known_is_a_question_mark(tmp_path):
    inputs = keras.Input((7, 3))
    x = layers.Dense(4)(Odd(4, name="odd")(inputs))
    found = tf_synflow.report(keras.Model(inputs, x))
    _, page = made(found, tmp_path)
    cells = page.tables[0][1]
    assert [cell[1] for cell in cells][6:8] == ["?", "?"]
    assert [cell[0]["data-value"] for cell in cells][6:8] == ["", ""]
    assert "Input and output are connected." not in page.words
    for note in found.notes:
        assert note in page.words


def test_an_unconnected_network_is_said_to_be_so(tmp_path):
    model = randomise(residual_net())
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    masks["conv2/kernel"][:] = False
    masks["conv3/kernel"][:] = False
    found = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    _, page = made(found, tmp_path)
    assert [a["class"] for t, a in page.elements if t == "p"].count("bad") == 1
    assert any(words.startswith("Not connected:") for words in page.words)


def test_other_names_and_folders_are_refused(tmp_path):
    found = report_of_a_collapsed_net()
    with pytest.raises(ValueError, match=r"ends in .html, got 'report.pdf'"):
        found.to_html("report.pdf")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.to_html(tmp_path / "nowhere" / "a.html")
    assert list(tmp_path.iterdir()) == []


def test_elements_escape_all_that_is_not_html():
    inner = element("b", "1 < 2", class_="a&b", data_value='"')
    assert inner == '<b class="a&amp;b" data-value="&quot;">1 &lt; 2</b>'
    assert element("p", inner, "<i>") == f"<p>{inner}&lt;i&gt;</p>"
    assert join(["<", inner], " ") == f"&lt; {inner}"
