"""Evaluations as text and as one self-contained HTML page, with the plots embedded."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musicclass import page
from musicclass.evaluation.evaluate import Record
from musicclass.model_page import PageSection, interval_name, overlap_warning, render_model, summary_rows
from musicclass.saved_model import SUBSET_NAMES
from musicclass.text import percent


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model on a subset of tracks; of a blind test, summary metrics alone."""

    title: str
    subset: str
    metrics: dict[str, Any]
    records: list[Record]
    training_overlap: tuple[str, ...] = ()  # evaluated tracks that were used in training


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

    sections = [PageSection(each.title, each.metrics, misclassified(each.records)) for each in evaluations]
    main = render_model(card, sections, plots=plots, png=png, history=history)
    return page.render_report(f"evaluation of {card['name']}", main)


def misclassified(records: Sequence[Record]) -> list[tuple[str, str, str, str]]:
    """Track, label, top genre and confidence of the records where these genres differ, most confident first."""
    wrong = sorted((r for r in records if r.top_genre != r.label), key=lambda record: -record.confidence)
    return [(r.track, r.label, r.top_genre, percent(r.confidence)) for r in wrong]


def png(figure: Any) -> str:
    """A figure as a data URL."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
