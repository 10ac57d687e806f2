"""The page of a sweep: its numbers are those of the runs, and it fetches nothing."""

import re
from pathlib import Path

import pytest
from html_pages import Page, fetches_nothing

import tf_synflow
from tf_synflow.criteria import CRITERIA
from tf_synflow.experiments import paper_tables
from tf_synflow.experiments.line_chart import Line, line_chart
from tf_synflow.experiments.paper_figures import STYLES
from tf_synflow.experiments.sweep_page import COLOURS, sweep_page

RUNS = [
    {"model": "resnet20", "dataset": d, "criterion": c, "ratio": r, "seed": s,
     "final_accuracy": a, "best_accuracy": "0.9", "kept": "27090"}
    for d, c, r, s, a in [
        ("cifar10", "synflow", "100", "0", "0.5"),
        ("cifar10", "synflow", "100", "1", "0.7"),
        ("cifar10", "synflow", "1", "0", "0.8"),
        ("cifar10", "snip", "0.9", "0", "0.6"),
        ("<i>", "random", "10", "0", "0.25"),
    ]
]  # fmt: skip


@pytest.fixture
def page():
    rows = paper_tables.accuracies(RUNS, "final")
    published = [{**rows[1], "criterion": "grasp", "mean": 33.0}]
    text = sweep_page(RUNS, rows, published, "final")
    page = Page(text)
    fetches_nothing(text, page)
    return page


def test_the_tables_hold_the_runs(page):
    first, second, every = page.tables  # "<i>" comes first
    assert len(second) == 1 + 3 and len(first) == 1 + 1
    means = [[cell[0]["data-value"] for cell in row] for row in second[1:]]
    assert [(r[0], round(float(r[1]), 9)) for r in means] == [
        ("snip", 10), ("synflow", 1), ("synflow", 100),
    ]  # fmt: skip
    numbers = [[round(float(value), 9) for value in row[2:]] for row in means]
    assert numbers == [[60, 60, 60], [80, 80, 80], [60, 50, 70]]
    assert [title[1] for title in every[0]] == [k.replace("_", " ") for k in RUNS[0]]
    for row, run in zip(every[1:], RUNS, strict=True):
        for cell, value in zip(row, run.values(), strict=True):
            found = cell[0]["data-value"]
            assert found == value or float(found) == float(value)
    assert every[-1][1][1] == "<i>"


def test_every_criterion_has_a_style_and_two_colours():
    folder = Path(tf_synflow.__file__).parent
    style = (folder / "reporting" / "page" / "style.css").read_text("utf-8")
    for criterion in CRITERIA:
        assert criterion in STYLES
        name = COLOURS.get(criterion, criterion)
        assert len(re.findall(f"--{name}: #", style)) == 2


def test_the_charts_hold_the_accuracies(page):
    titles = [words for words in page.words if re.search(r": [\d.]+ at [\d.]+$", words)]
    assert titles == [
        "random: 25 at 10",
        "SNIP: 80 at 1",  # the dense network, which the sweep has once
        "SNIP: 60 at 10",
        "SynFlow: 80 at 1",
        "SynFlow: 60 at 100",
    ]
    assert "GraSP, published" in page.words


def test_points_lie_where_their_numbers_say():
    """Places are a straight function of the decade and of the accuracy."""
    points = [(1, 0, 0, 0), (10, 50, 40, 60), (1000, 100, 100, 100)]
    page = Page(
        "<!doctype html>"
        + line_chart([Line(label="a", colour="snip", points=points)], "x", "y")
    )
    dots = [a for tag, a in page.elements if tag == "circle"]
    x, y = ([float(dot[key]) for dot in dots] for key in ("cx", "cy"))
    assert x[1] - x[0] == pytest.approx((x[2] - x[0]) / 3, abs=0.1)
    assert y[0] - y[1] == pytest.approx((y[0] - y[2]) / 2, abs=0.1)
    assert x[0] < x[2] and y[0] > y[2]  # SVG counts downwards
    (whisker,) = [a["d"] for tag, a in page.elements if tag == "path"]
    low, high = (
        float(v) for v in re.match(r"M[\d.]+,([\d.]+)V([\d.]+)", whisker).groups()
    )
    assert low - high == pytest.approx((y[0] - y[2]) / 5, abs=0.1)
    (line,) = [a["points"] for tag, a in page.elements if tag == "polyline"]
    assert line == " ".join(f"{dot['cx']},{dot['cy']}" for dot in dots)


@pytest.mark.parametrize(
    "points", [[(10, 50, 50, 50)], [(1, 0, 0, 0), (1, 1e-3, 0, 1)]]
)
def test_a_chart_of_one_decade_or_one_accuracy_has_axes(points):
    page = Page(line_chart([Line(label="a", colour="snip", points=points)], "x", "y"))
    dots = [a for tag, a in page.elements if tag == "circle"]
    assert len(dots) == len(points)
    assert all(
        0 < float(dot["cx"]) < 820 and 0 < float(dot["cy"]) < 420 for dot in dots
    )
