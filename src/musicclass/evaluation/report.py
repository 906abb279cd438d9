"""Evaluations as text and as one self-contained HTML page, with the plots embedded."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicclass.errors import import_optional
from musicclass.evaluation.evaluate import Record
from musicclass.page import render_report as render_page
from musicclass.saved_model import SUBSET_NAMES
from musicclass.text import percent

TEMPLATE = Path(__file__).with_name("report.html.j2")
SUMMARY = {  # metric -> its name and format
    "accuracy": ("accuracy", ".1%"),
    "macro_f1": ("macro F1", ".1%"),
    "log_loss": ("log loss", ".3f"),
    "ece": ("adaptive ECE", ".3f"),
    "ece_if_calibrated": ("ECE if perfectly calibrated", ".3f"),
    "accuracy_at_60pct_coverage": ("accuracy at 60% coverage", ".1%"),
    "unknown_rate": ('predicted as "unknown"', ".1%"),
}


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a subset of tracks; of a blind test, summary metrics alone."""

    title: str
    subset: str
    metrics: dict[str, Any]
    records: list[Record]
    training_overlap: tuple[str, ...] = ()  # evaluated tracks that were used in training


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


def summarize_accuracy(evaluation: Evaluation) -> str:
    """Such as "accuracy 76.9% on 290 test tracks (95% CI by artist [68.5%, 83.6%])"."""
    metrics, (_, value, interval) = evaluation.metrics, summary_rows(evaluation.metrics)[0]
    warning = f"; {overlap_warning(metrics)}" if overlap_warning(metrics) else ""
    name = SUBSET_NAMES[evaluation.subset]
    tracks = f"tracks in {name}" if evaluation.subset == "cv" else f"{name} tracks"
    return f"accuracy {value} on {metrics['n_tracks']} {tracks} ({interval_name(metrics)} {interval}{warning})"


def render_report(
    card: Mapping[str, Any], evaluations: Sequence[Evaluation], history: Sequence[Mapping[str, Any]]
) -> str:
    """The HTML page on a model, by its card, its evaluations and the rows of its history.csv."""
    from musicclass import plots

    environment = import_optional("jinja2", "plot").Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    functions = (png, misclassified, summary_rows, genre_rows, interval_name, overlap_warning)
    environment.globals |= {function.__name__: function for function in functions}
    details = {name: card[name] for name in ("data", "config", "calibration", "members", "versions") if name in card}
    text = json.dumps(details, indent=1, ensure_ascii=False)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"), {"plots": plots})
    main = template.render(card=card, evaluations=evaluations, history=history, details=text)
    return render_page(f"evaluation of {card['name']}", main)


def genre_rows(genres: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Genre, number of tracks, and recall, precision and F1 with their 95% intervals, as text."""

    def interval(scores: Mapping[str, Any], name: str) -> str:
        return "{:.0%} [{:.0%}, {:.0%}]".format(scores[name], *scores[f"{name}_ci95"])

    names = ("recall", "precision", "f1")
    return [(genre, str(s["n_tracks"]), *(interval(s, name) for name in names)) for genre, s in genres.items()]


def misclassified(records: Sequence[Record]) -> list[tuple[str, str, str, str]]:
    """Track, label, top genre and confidence of the records where these genres differ, most confident first."""
    wrong = sorted((r for r in records if r.top_genre != r.label), key=lambda record: -record.confidence)
    return [(r.track, r.label, r.top_genre, percent(r.confidence)) for r in wrong]


def png(figure: Any) -> str:
    """A figure as a data URL."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
