"""The results of sweeps as a page of HTML: a chart for each network, and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_synflow.experiments.line_chart import Line, line_chart
from tf_synflow.experiments.paper_figures import STYLES
from tf_synflow.reporting.html_page import Cell, Html, element, page, table

Rows = Sequence[Mapping[str, Any]]

# Names of colours in style.css, if they are not the name of the criterion.
COLOURS = {
    "loss_preservation": "loss",
    "small_magnitude_loss_preservation": "small",
    "gradient_norm_preservation": "norm",
}


def sweep_page(runs: Rows, rows: Rows, published: Rows, which: str) -> str:
    """The page of the results of sweeps.

    Args:
      runs: Rows of `sweep.rows`, or of its `runs.csv`.
      rows: The table that `paper_tables.accuracies` makes from `runs`.
      published: The table of `paper_tables.published`; may be empty.
      which: "final" or "best": which accuracy `rows` holds.
    """
    parts = [
        element("h1", "Results of a sweep"),
        element(
            "p",
            f"{len(runs)} runs. Accuracy is the {which} top-1 accuracy on the test "
            "data, the mean over the seeds; whiskers reach from the lowest to the "
            "highest seed. Click a title of a table to sort.",
            class_="faint",
        ),
    ]
    for model, dataset in sorted({(row["model"], row["dataset"]) for row in rows}):
        own = [r for r in rows if (r["model"], r["dataset"]) == (model, dataset)]
        theirs = [
            r for r in published if (r["model"], r["dataset"]) == (model, dataset)
        ]
        parts += [
            element("h2", f"{model} on {dataset}"),
            line_chart(
                [*_lines(own, dashed=False), *_lines(theirs, dashed=True)],
                "compression ratio (prunable / kept weights)",
                f"{which} test accuracy (%)",
            ),
            element("h3", "Mean over the seeds"),
            _accuracies(own),
        ]
    return page("Results of a sweep", [*parts, element("h2", "All runs"), _runs(runs)])


def _lines(rows: Rows, dashed: bool) -> list[Line]:
    """A line for each criterion, which begins at the dense network if there is one."""
    dense = [row for row in rows if row["alpha"] == 0][:1]
    lines = []
    for criterion in dict.fromkeys(row["criterion"] for row in rows):
        own = [r for r in rows if r["criterion"] == criterion]
        if all(row["alpha"] for row in own):
            own = dense + own
        points = [(10 ** r["alpha"], r["mean"], r["min"], r["max"]) for r in own]
        label = STYLES[criterion][0] + (", published" if dashed else "")
        colour = COLOURS.get(criterion, criterion)
        lines.append(
            Line(label=label, colour=colour, points=sorted(points), dashed=dashed)
        )
    return lines


def _accuracies(rows: Rows) -> Html:
    titles = {
        "criterion": True,
        "compression ratio": False,
        "mean (%)": False,
        "lowest (%)": False,
        "highest (%)": False,
    }
    cells = [
        [
            Cell(value=row["criterion"]),
            Cell(value=10 ** row["alpha"], shown=f"{10 ** row['alpha']:,.4g}"),
            *(
                Cell(value=row[key], shown=f"{row[key]:.2f}")
                for key in ("mean", "min", "max")
            ),
        ]
        for row in rows
    ]
    return table(titles, cells, set())


def _runs(runs: Rows) -> Html:
    columns = list(dict.fromkeys(column for run in runs for column in run))
    is_text = {
        column: column in ("model", "dataset", "criterion") for column in columns
    }
    cells = [
        [_cell(run.get(column), is_text[column]) for column in columns] for run in runs
    ]
    titles = {column.replace("_", " "): is_text[column] for column in columns}
    return table(titles, cells, set())


def _cell(value: Any, is_text: bool) -> Cell:
    if is_text or value is None:
        return Cell(value=value)
    number = float(value)
    return Cell(
        value=number, shown=f"{number:,.0f}" if number.is_integer() else f"{number:.4g}"
    )
