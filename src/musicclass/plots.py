"""Figures: training history, confusion matrix, reliability diagram, accuracy against coverage, segments of a track.

Only this module imports matplotlib, on first use. Figures are returned, not shown; `save` writes them.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from musicclass.errors import ConfigError, escape_control_chars, import_optional
from musicclass.files import write_atomically
from musicclass.palette import COLORS, genre_color
from musicclass.prediction import Prediction
from musicclass.text import percent, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from musicclass.explain import Explanation

Array = npt.NDArray[np.float32]

SUFFIXES = (".png", ".svg", ".pdf")
GREY = "#999999"
WAVEFORM_COLUMNS = 2000
SUPPORTING, OPPOSING = (0.0, 0.35, 0.75), (0.9, 0.45, 0.0)  # RGB of blue and orange: distinct without red and green
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "MS Gothic", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as .png, .svg or .pdf. Raises ConfigError for another suffix."""
    check_suffix(path)
    with write_atomically(path) as file, warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph")
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=150)
    if any("Glyph" in str(warning.message) for warning in caught):
        warnings.warn(f"{path}: no font here has all of its characters; install Noto Sans CJK", stacklevel=2)
    return path


def require_matplotlib() -> None:
    """Raise MissingExtraError without matplotlib, which doesn't log that its cache folder can't be written."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import_optional("matplotlib.font_manager", "plot")
    finally:
        logger.setLevel(level)


@functools.cache
def _add_cjk_fonts() -> None:
    """Let texts in Chinese, Japanese and Korean use the fonts that there are."""
    import matplotlib
    from matplotlib import font_manager

    names = set(font_manager.get_font_names())
    matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], *(f for f in CJK_FONTS if f in names)]


def check_suffix(path: Path) -> None:
    """Raise ConfigError when figures can't be written with this suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: figures are written as {', '.join(SUFFIXES)}; change the suffix")


def show(figures: Sequence[Figure]) -> bool:
    """Show figures until their windows are closed; False without a display."""
    require_matplotlib()
    plt = import_optional("matplotlib.pyplot", "plot")
    if plt.get_backend().lower() in ("agg", "pdf", "svg", "ps", "template"):
        return False
    for figure in figures:
        plt.figure(figure)  # matplotlib >= 3.11 adopts figures made without pyplot
    plt.show()
    return True


def history(rows: Sequence[Mapping[str, Any]], title: str = "", heldout: Mapping[str, Any] | None = None) -> Figure:
    """Accuracy and loss against epochs, of training windows and of validation tracks, from the rows of history.csv.

    Models that are calibrated by folds have no validation tracks: the metrics of their `heldout` tracks, of the models
    at the end of training, are dashed lines. With a single epoch (LDA has a closed-form solution): points, not lines.
    """
    figure, axes = _figure(8, 7, 2, sharex=True)
    marker = "" if len(rows) > 1 else "o"
    curves = {"": ("training", GREY), "val_": ("validation", COLORS[0])}
    for axis, name, metric in zip(axes, ("accuracy", "loss"), ("accuracy", "log_loss"), strict=True):
        for prefix, (label, color) in curves.items():
            points = [(float(row["epoch"]), float(row[prefix + name])) for row in rows if row.get(prefix + name)]
            if points:
                axis.plot(*zip(*points, strict=True), color=color, marker=marker, label=label)
        if heldout and metric in heldout and len(axis.lines) < 2:
            label = "held-out tracks, after training"
            axis.axhline(heldout[metric], color=COLORS[0], linestyle="--", label=label)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    axes[0].set_title(_literal(title))
    axes[1].set(xlabel="epoch")
    return figure


def confusion_matrix(counts: Sequence[Sequence[int]], genres: Sequence[str], title: str = "") -> Figure:
    """Numbers of tracks by label (rows) and predicted genre (columns), shaded by their share of the row."""
    table = np.asarray(counts)
    row_share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    size = 3 + 0.55 * len(genres)
    figure, axis = _figure(size, size)
    axis.imshow(row_share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        if count:
            color = "white" if row_share[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=color)
    names = [_literal(genre) for genre in genres]
    axis.set_xticks(range(len(genres)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(genres)), [f"{name} ({n})" for name, n in zip(names, table.sum(axis=1), strict=True)])
    axis.set(xlabel="predicted genre", ylabel="label (number of tracks)", title=_literal(title))
    return figure


def reliability(bins: Sequence[Sequence[float]], ece: float, title: str = "") -> Figure:
    """Reliability diagram: accuracy against mean confidence, from bins (confidence, accuracy, n_tracks)."""
    figure, axis = _figure(5.5, 5.5)
    confidence, accuracy, counts = (list(column) for column in zip(*bins, strict=True))
    axis.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
    label = f"bins of about {plural(round(float(np.mean(counts))), 'track')}"
    axis.plot(confidence, accuracy, "o-", color=COLORS[0], label=label)
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axis.set_title(f"{_literal(title)}\nexpected calibration error {ece:.3f}".strip())
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


def genre_scores(genres: Mapping[str, Mapping[str, Any]]) -> Figure:
    """F1 of each genre with its 95% interval, highest first; in report.html.j2."""
    order = sorted(genres, key=lambda genre: genres[genre]["f1"])
    figure, axis = _figure(7, 1 + 0.35 * len(order))
    values = np.array([genres[genre]["f1"] for genre in order])
    low, high = np.array([genres[genre]["f1_ci95"] for genre in order]).T
    errors = np.clip([values - low, high - values], 0, None)
    colors = [genre_color(genre, order) for genre in order]
    axis.barh(list(map(_literal, order)), values, xerr=errors, color=colors, ecolor="#555555", capsize=3)
    axis.set(xlim=(0, 1), xlabel="F1")
    axis.grid(alpha=0.3, axis="x")
    return figure


def coverage(points: Sequence[Sequence[float]]) -> Figure:
    """Accuracy on the most confident tracks against their share of all tracks, from points (coverage, accuracy)."""
    figure, axis = _figure(6, 4)
    axis.plot(*zip(*points, strict=True), "o-", color=COLORS[0])
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="coverage (most confident tracks first)", ylabel="accuracy")
    axis.grid(alpha=0.3)
    return figure


def evaluation(folder: Path, genres: Sequence[str], metrics: Mapping[str, Any], title: str) -> list[Path]:
    """Write the confusion matrix and the reliability diagram of evaluation metrics, those of them that it has."""
    written = []
    if "confusion_matrix" in metrics:
        figure = confusion_matrix(metrics["confusion_matrix"], genres, title)
        written.append(save(figure, folder / "confusion_matrix.png"))
    if "reliability_bins" in metrics:
        figure = reliability(metrics["reliability_bins"], metrics["ece"], title)
        written.append(save(figure, folder / "reliability.png"))
    return written


def timeline(prediction: Prediction, waveform: Array, explanation: Explanation | None = None) -> Figure:
    """The waveform (n,), colored by the segments' genres, above the segments' probabilities; time in seconds.

    With an `explanation`, its log-mel frames and weights below.
    """
    heights = (1, 2, 2) if explanation else (1, 2)
    figure, axes = _figure(11, 2 + 1.5 * sum(heights), len(heights), sharex=True, height_ratios=heights)
    _plot_waveform(axes[0], prediction, waveform)
    _plot_probabilities(axes[1], prediction)
    if explanation:
        _plot_explanation(axes[2], explanation)
    name = escape_control_chars(Path(prediction.file or "").name)
    axes[0].set_title(_literal(f"{name}  {prediction.summary()}"))
    axes[-1].set_xlabel("seconds")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, title="probability for\nthe whole track")
    return figure


def _plot_waveform(axis: Axes, prediction: Prediction, waveform: Array) -> None:
    genres = list(prediction.probabilities)
    starts = np.unique(np.linspace(0, len(waveform), WAVEFORM_COLUMNS, endpoint=False).astype(np.intp))
    low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    times = np.linspace(0, prediction.duration, len(low))
    column_seconds = prediction.duration / len(low)
    for segment in prediction.segments:
        inside = (times >= segment.start) & (times <= segment.end + column_seconds)
        color = genre_color(segment.genre, genres)
        axis.fill_between(times[inside], low[inside], high[inside], color=color, linewidth=0)
    axis.set(ylabel="waveform", yticks=[])


def _plot_probabilities(axis: Axes, prediction: Prediction) -> None:
    """Stacked probabilities of each segment; the most probable genre of the track on top."""
    genres = list(prediction.probabilities)
    edges = [segment.start for segment in prediction.segments] + [prediction.duration]
    values = np.array([[s.probabilities.get(genre, 0.0) for s in prediction.segments] for genre in genres])
    tops = values[::-1].cumsum(axis=0)[::-1]
    for genre, value, top in zip(genres, values, tops, strict=True):
        label = f"{_literal(genre)} {percent(prediction.probabilities[genre])}"
        axis.stairs(top, edges, baseline=top - value, fill=True, color=genre_color(genre, genres), label=label)
    axis.set(xlim=(0, prediction.duration), ylim=(0, 1), ylabel="probability")


def _plot_explanation(axis: Axes, explanation: Explanation) -> None:
    """Log-mel frames in grey below the cells of the explanation, whose opacity is their weight."""
    decibels = np.maximum(explanation.log_mel, explanation.log_mel.max() - 80).T
    weights = explanation.weights.T
    extent = (0.0, explanation.times[-1], 0.0, float(len(weights)))
    axis.imshow(decibels, origin="lower", aspect="auto", cmap="gray_r", extent=extent, interpolation="antialiased")
    cells = np.zeros((*weights.shape, 4))
    cells[..., :3] = np.where((weights > 0)[..., None], SUPPORTING, OPPOSING)
    cells[..., 3] = 0.75 * np.abs(weights) / (np.abs(weights).max() or 1)
    axis.imshow(cells, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
    axis.set_yticks(range(len(explanation.frequencies)), [f"{round(f, -1):,.0f}" for f in explanation.frequencies])
    axis.set(ylabel="Hz", title=f"blue: evidence for {_literal(explanation.genre)}; orange: against it")


def _figure(width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    require_matplotlib()
    _add_cjk_fonts()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, **options)


def _literal(text: str) -> str:
    """Escape dollar signs, which matplotlib would parse as mathematics."""
    return text.replace("$", r"\$")
