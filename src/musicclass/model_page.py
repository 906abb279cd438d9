"""The metrics of a model as text, and the page about it: in the web UI, and as the report of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from musicclass.errors import import_optional
from musicclass.page import LAYOUT
from musicclass.text import percent, plural

SUMMARY = {  # metric -> its name and format
    "accuracy": ("accuracy", ".1%"),
    "macro_f1": ("macro F1", ".1%"),
    "macro_recall": ("macro recall", ".1%"),
    "log_loss": ("log loss", ".3f"),
    "ece": ("adaptive ECE", ".3f"),
    "ece_if_calibrated": ("ECE if perfectly calibrated", ".3f"),
    "accuracy_at_60pct_coverage": ("accuracy at 60% coverage", ".1%"),
    "unknown_rate": ('predicted as "unknown"', ".1%"),
}
NO_VALUE = "–"
DETAILS = ("genres", "data", "config", "calibration", "members", "parameters", "versions", "sha256")


class PageSection(NamedTuple):
    """An evaluation on the page."""

    title: str
    metrics: Mapping[str, Any]
    misclassified: Sequence[tuple[str, ...]] = ()  # rows of track, label, top genre, confidence


def summary_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and 95% interval, as text, of those of the SUMMARY metrics that there are."""
    rows = []
    for key, (name, spec) in SUMMARY.items():
        if key in metrics:
            interval = metrics.get(f"{key}_ci95")
            text = "[{}, {}]".format(*(format(value, spec) for value in interval)) if interval else ""
            rows.append((name, format(metrics[key], spec), text))
    return rows


def interval_name(metrics: Mapping[str, Any]) -> str:
    """The intervals hold for other artists only where no artist of the evaluated tracks is in training."""
    clustered = metrics["n_artists"] < metrics["n_tracks"]
    return "95% CI by artist" if clustered and not metrics.get("artist_overlap") else "95% CI"


def overlap_warning(metrics: Mapping[str, Any]) -> str:
    """Such as "86% of the tracks of known artists share an artist with training"; empty where no track does."""
    if not metrics.get("artist_overlap"):
        return ""
    return f"{metrics['artist_overlap']:.0%} of the tracks of known artists share an artist with training"


def genre_rows(genres: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Genre, number of tracks, and recall, precision and F1 with their 95% intervals, as text."""

    def interval(scores: Mapping[str, Any], name: str) -> str:
        low, high = scores[f"{name}_ci95"]
        return f"{share(scores, name, scores['n_tracks'])} [{low:.0%}, {high:.0%}]"

    names = ("recall", "precision", "f1")
    return [
        (genre, str(s["n_tracks"]), *(interval(s, name) if s["n_tracks"] else NO_VALUE for name in names))
        for genre, s in genres.items()
    ]


def share(scores: Mapping[str, float], name: str, n_tracks: int) -> str:
    """The score as "71%", or NO_VALUE where it would be of no track."""
    return f"{scores[name]:.0%}" if n_tracks else NO_VALUE


def render_model(
    card: Mapping[str, Any], evaluations: Sequence[PageSection], min_confidence: float | None = None, **more: Any
) -> str:
    """The HTML of the page, for page.render_page; `more` are values for parts that the web UI doesn't have."""
    environment = import_optional("jinja2", "plot").Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    functions = (summary_rows, interval_name, overlap_warning, genre_rows, percent, plural, zip, sum)
    environment.globals |= {function.__name__: function for function in functions}
    template = environment.from_string((LAYOUT / "model.html.j2").read_text(encoding="utf-8"))
    text = json.dumps({name: card[name] for name in DETAILS if name in card}, indent=1, ensure_ascii=False)
    values = {"card": card, "evaluations": evaluations, "min_confidence": min_confidence, "details": text}
    return str(template.render(values | more))
