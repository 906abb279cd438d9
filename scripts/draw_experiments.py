"""Draw the table of docs/experiments.md that tells what each step brought: python scripts/draw_experiments.py"""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musicclass import plots

DOCS = Path(__file__).parents[1] / "docs"
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


def main() -> None:
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    header, *lines = text[text.index("| step |") :].split("\n\n")[0].splitlines()
    _, *columns = cells(header)
    rows = [cells(line) for line in lines[1:]]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True)
    steps, *measured = zip(*rows, strict=True)
    for axis, name, colour, values in zip(panels, columns, plots.COLOURS, measured, strict=False):
        draw(axis, name, colour, values)
    panels[0].set_yticks(range(len(steps)), [LINK.sub(r"\1", step) for step in steps])
    panels[0].invert_yaxis()
    plots.save(figure, DOCS / "images" / "experiments.png")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def draw(axis: Axes, name: str, colour: str, values: tuple[str, ...]) -> None:
    """One column, from the first row to the last; with its interval where it has one."""
    places = range(len(values))
    for place, value in zip(places, values, strict=True):
        found, *interval = re.findall(r"[\d.]+", value)
        axis.plot([float(edge) for edge in interval], [place] * len(interval), color=colour, alpha=0.35, linewidth=4)
        axis.plot(float(found), place, "o", color=colour)
        axis.annotate(found, (float(found), place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axis.set_title(name if "loss" in name else f"{name}, %")
    axis.margins(x=0.15, y=0.1)
    axis.grid(axis="x", alpha=0.3)


if __name__ == "__main__":
    main()
