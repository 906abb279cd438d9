"""Pictures: training history, confusion matrix, reliability, and a track's time line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicclass.errors import ConfigError, printable, require
from musicclass.features import Array
from musicclass.files import write_atomically
from musicclass.prediction import Prediction, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from musicclass.explain import Explanation

SUFFIXES = (".png", ".svg", ".pdf")
# Ten hues that stay apart for most colour-blind eyes; further genres start over.
COLOURS = (
    "#4477aa", "#cc9933", "#66aa55", "#ee6677", "#8855aa",
    "#44bbcc", "#555555", "#ee99bb", "#999933", "#bb4422",
)  # fmt: skip
SILENT, UNSURE = "#dddddd", "#aaaaaa"


def colour(genre: str | None, genres: Sequence[str]) -> str:
    """The genre's colour: the same in every picture of the same model. Greys for unknown and, None, silence."""
    if genre is None or genre not in genres:
        return UNSURE if genre else SILENT
    return COLOURS[sorted(genres).index(genre) % len(COLOURS)]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as .png, .svg or .pdf. Raises ConfigError for another ending."""
    check_suffix(path)
    with write_atomically(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=150)
    return path


def check_suffix(path: Path) -> None:
    """Raise ConfigError when no picture can be written with this ending."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: pictures are written as {', '.join(SUFFIXES)}; change the ending")


def in_windows(figures: Sequence[Figure]) -> bool:
    """Show figures in windows until these are closed; False where there is no display to do so."""
    plt = require("matplotlib.pyplot", "plot")
    if plt.get_backend().lower() in ("agg", "pdf", "svg", "ps", "template"):
        return False
    for figure in figures:
        plt.figure(figure)  # matplotlib >= 3.11 takes up figures made elsewhere
    plt.show()
    return True


def _literal(text: str) -> str:
    """So that matplotlib takes the dollars in a name for dollars, not for mathematics."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, **options)


def history(rows: Sequence[dict[str, float]], title: str = "") -> Figure:
    """Accuracy and loss against epochs, for training (windows) and validation (tracks).

    A single one is what was solved at once, by whole tracks: points instead of lines.
    """
    figure, axes = _figure(8, 7, 2, sharex=True)
    epochs = [row["epoch"] for row in rows]
    label, marker = ("training, altered windows", "") if len(rows) > 1 else ("training, whole tracks", "o")
    for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
        axis.plot(epochs, [row[name] for row in rows], color="#999999", marker=marker, label=label)
        if f"val_{name}" in rows[0]:
            values = [row[f"val_{name}"] for row in rows]
            axis.plot(epochs, values, color=COLOURS[0], marker=marker, label="validation, whole tracks")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    axes[0].set_title(_literal(title))
    axes[1].set(xlabel="epoch", xlim=(1, epochs[-1]) if len(rows) > 1 else (0, 2))
    return figure


def confusion_matrix(counts: Sequence[Sequence[int]], genres: Sequence[str], title: str = "") -> Figure:
    """Counts of tracks by true genre (rows) and told genre (columns), shaded by the share of the row."""
    table = np.asarray(counts)
    share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    size = 3 + 0.55 * len(genres)
    figure, axis = _figure(size, size)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        if count:
            shade = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=shade)
    names = [_literal(genre) for genre in genres]
    axis.set_xticks(range(len(genres)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(genres)), [f"{name} ({n})" for name, n in zip(names, table.sum(axis=1), strict=True)])
    axis.set_xlabel("told genre")
    axis.set_ylabel("true genre")
    axis.set_title(_literal(title))
    return figure


def reliability(bins: Sequence[Sequence[float]], error: float, title: str = "") -> Figure:
    """How often the model is right (height) when it is so sure (along): on the diagonal it means what it says."""
    figure, axis = _figure(5.5, 5.5)
    confidence, accuracy, counts = (list(column) for column in zip(*bins, strict=True))
    axis.plot([0, 1], [0, 1], color="#999999", linestyle="--", label="confidence as it should be")
    label = f"bins of about {round(float(np.mean(counts)))} tracks"
    axis.plot(confidence, accuracy, "o-", color=COLOURS[0], label=label)
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="share that is right", aspect="equal")
    axis.set_title(f"{_literal(title)}\nexpected calibration error {error:.3f}".strip())
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


def genre_scores(genres: dict[str, dict[str, Any]]) -> Figure:
    """F1 of each genre with its interval, best first."""
    order = sorted(genres, key=lambda genre: genres[genre]["f1"])
    figure, axis = _figure(7, 1 + 0.35 * len(order))
    values = np.array([genres[genre]["f1"] for genre in order])
    low, high = np.array([genres[genre]["f1_95"] for genre in order]).T
    reach = np.clip([values - low, high - values], 0, None)
    colours = [colour(genre, order) for genre in order]
    axis.barh(list(map(_literal, order)), values, xerr=reach, color=colours, ecolor="#555555", capsize=3)
    axis.set(xlim=(0, 1), xlabel="F1")
    axis.grid(alpha=0.3, axis="x")
    return figure


def coverage(points: Sequence[Sequence[float]]) -> Figure:
    """Accuracy on the surest tracks, against their share of all."""
    figure, axis = _figure(6, 4)
    shares, accuracy = zip(*points, strict=True)
    axis.plot(shares, accuracy, "o-", color=COLOURS[0])
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="share of tracks that is kept, the surest", ylabel="accuracy")
    axis.grid(alpha=0.3)
    return figure


def evaluation(folder: Path, genres: Sequence[str], metrics: dict[str, Any], title: str) -> list[Path]:
    """Confusion matrix and reliability diagram of metrics (see training/metrics.py), as pictures in `folder`."""
    return [
        save(confusion_matrix(metrics["confusion"], genres, title), folder / "confusion_matrix.png"),
        save(reliability(metrics["reliability"], metrics["calibration_error"], title), folder / "reliability.png"),
    ]


def timeline(prediction: Prediction, waveform: Array, why: Explanation | None = None) -> Figure:
    """The waveform, coloured by genre, over the probabilities of each segment; time in seconds.

    Below it, where `why` is given, the log-mel frames, and what in them the genre rests on.
    """
    rows = (1, 2, 2) if why else (1, 2)
    figure, (top, bottom, *below) = _figure(11, 2 + 1.5 * sum(rows), len(rows), sharex=True, height_ratios=rows)
    genres = list(prediction.probabilities)
    low, high = peaks(waveform, 2000)
    times = np.linspace(0, prediction.duration, len(low))
    for segment in prediction.segments:
        inside = (times >= segment.start) & (times <= segment.end + prediction.duration / len(low))
        shade = colour(segment.genre, genres)
        top.fill_between(times[inside], low[inside], high[inside], color=shade, linewidth=0)
    edges = [segment.start for segment in prediction.segments] + [prediction.duration]
    shares = [[s.probabilities.get(genre, 0.0) for s in prediction.segments] for genre in genres]
    top_edge = np.sum(shares, axis=0)
    for genre, share in zip(genres, shares, strict=True):
        name = f"{_literal(genre)} {prediction.probabilities[genre]:.0%}"
        bottom.stairs(top_edge, edges, baseline=top_edge - share, fill=True, color=colour(genre, genres), label=name)
        top_edge = top_edge - share
    top.set(ylabel="waveform", yticks=[])
    top.set_title(_literal(f"{printable(Path(prediction.file or '').name)}  {in_words(prediction)}"))
    bottom.set(xlim=(0, prediction.duration), ylim=(0, 1), ylabel="probability")
    if why:
        _explanation(below[0], why)
    (below or [bottom])[0].set_xlabel("seconds")
    handles, names = bottom.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, title="whole track")
    return figure


def _explanation(axis: Any, why: Explanation) -> None:
    """Log-mel frames in grey; the cells of the explanation over them, the stronger the more they count."""
    decibels = np.maximum(why.log_mel, why.log_mel.max() - 80).T
    extent = (0.0, why.times[-1], 0.0, float(why.weights.shape[1]))
    axis.imshow(decibels, origin="lower", aspect="auto", cmap="gray_r", extent=extent, interpolation="antialiased")
    limit = float(np.abs(why.weights).max()) or 1.0
    shades = np.zeros((*why.weights.T.shape, 4))
    shades[..., :3] = np.where((why.weights.T > 0)[..., None], (0.0, 0.55, 0.2), (0.85, 0.1, 0.1))
    shades[..., 3] = 0.75 * np.abs(why.weights.T) / limit
    axis.imshow(shades, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    axis.set_yticks(range(len(why.frequencies)), [f"{round(f, -1):,.0f}" for f in why.frequencies])
    axis.set(ylabel="Hz", title=f"green: speaks for {_literal(why.genre)}; red: against it")


def peaks(waveform: Array, columns: int) -> tuple[Array, Array]:
    """Minimum and maximum of a waveform (n,) in each of at most `columns` equal stretches."""
    starts = np.unique(np.linspace(0, len(waveform), columns, endpoint=False).astype(np.intp))
    low: Array = np.minimum.reduceat(waveform, starts)
    high: Array = np.maximum.reduceat(waveform, starts)
    return low, high
