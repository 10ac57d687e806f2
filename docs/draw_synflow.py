"""Draws docs/synflow.svg: the scores of a small network, and what is kept of it.

python docs/draw_synflow.py

The scores are computed as the page beside it says, with NumPy alone.
"""

from pathlib import Path

import numpy as np

UNITS = (3, 5, 5, 2)
RATIO, ITERATIONS, SEED = 4, 100, 3
WIDTH, HEIGHT, TOP = 760, 330, 44
BLUE, ORANGE, GREY = "#2d8fc4", "#e0701a", "#8a939c"


def scores(weights: list[np.ndarray]) -> list[np.ndarray]:
    """S(w) = dR/d|w| |w|: flow into the weight, times |w|, times flow out of it."""
    forward, backward = [np.ones(UNITS[0])], [np.ones(UNITS[-1])]
    for weight in weights:
        forward.append(forward[-1] @ weight)
    for weight in reversed(weights):
        backward.insert(0, weight @ backward[0])
    return [
        np.outer(a, b) * w
        for a, w, b in zip(forward, weights, backward[1:], strict=False)
    ]


def pruned(weights: list[np.ndarray]) -> list[np.ndarray]:
    """The weights, with those at 0 that SynFlow removes."""
    weights = [w.copy() for w in weights]
    size = sum(w.size for w in weights)
    for k in range(1, ITERATIONS + 1):
        found = np.concatenate([s.ravel() for s in scores(weights)])
        kept = int(np.ceil(size * RATIO ** (-k / ITERATIONS)))
        threshold = np.sort(found)[-kept]
        for weight, score in zip(weights, scores(weights), strict=True):
            weight[score < threshold] = 0
    return weights


def panel(weights: list[np.ndarray], left: float, title: str, after: bool) -> str:
    """One network, each line as thick as its score."""
    x = [left + 30 + 270 * k / 3 for k in range(4)]
    y = [
        [TOP + 30 + (HEIGHT - TOP - 60) * (i + 0.5) / count for i in range(count)]
        for count in UNITS
    ]
    found = scores(weights)
    most = max(s.max() for s in found)
    lines = []
    for layer, score in enumerate(found):
        for (i, j), value in np.ndenumerate(score):
            if value:
                width = 0.6 + 9 * value / most
                lines.append(
                    f'<line x1="{x[layer]:.0f}" y1="{y[layer][i]:.0f}" '
                    f'x2="{x[layer + 1]:.0f}" y2="{y[layer + 1][j]:.0f}" '
                    f'stroke="{ORANGE if after else BLUE}" stroke-width="{width:.1f}" '
                    'stroke-opacity=".75" stroke-linecap="round"/>'
                )
    for layer, places in enumerate(y):
        for unit, place in enumerate(places):
            into = found[layer - 1][:, unit].sum() if layer else 1
            out = found[layer][unit].sum() if layer < 3 else 1
            alive = into > 0 and out > 0
            look = (
                f'fill="{ORANGE if after else BLUE}"'
                if alive
                else f'fill="none" stroke="{GREY}" stroke-width="2" '
                'stroke-dasharray="3 3"'
            )
            lines.append(f'<circle cx="{x[layer]:.0f}" cy="{place:.0f}" r="9" {look}/>')
    for layer, word in ((0, "input"), (3, "output")):
        place = f'x="{x[layer]:.0f}" y="{HEIGHT - 4}" text-anchor="middle"'
        lines.append(f"<text {place}>{word}</text>")
    lines.append(f'<text x="{left + 165}" y="22" text-anchor="middle">{title}</text>')
    return "\n".join(lines)


def main() -> None:
    """Draws both panels."""
    generator = np.random.default_rng(SEED)
    shapes = zip(UNITS, UNITS[1:], strict=False)
    weights = [np.abs(generator.standard_normal(shape)) for shape in shapes]
    after = pruned(weights)
    size, kept = (sum(np.count_nonzero(w) for w in ws) for ws in (weights, after))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="15" fill="{GREY}">',
        panel(weights, 20, f"{size} weights, as thick as their scores", False),
        panel(after, 410, f"{kept} weights kept, ratio {RATIO}", True),
        "</svg>",
    ]
    Path(__file__).with_name("synflow.svg").write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
