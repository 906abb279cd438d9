"""One HTML page on how good a model is, with all pictures in it; it needs no other file and no network."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

from musicclass import plots
from musicclass.printing import interval_of

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; background: white; border-radius: 6px; }
figcaption, .quiet { color: #777; } pre { overflow-x: auto; }
"""


def page(card: dict[str, Any], metrics: dict[str, Any], rows: Sequence[dict[str, Any]], title: str) -> str:
    """The report on `metrics` (see metrics.py) and `rows` (see evaluate.py) of the model that `card` describes."""
    genres = card["genres"]
    parts = [
        f"<h1>{_text(title)}</h1><p>{_text(card.get('about', ''))}</p>",
        _headline(metrics),
        _picture(plots.genre_scores(metrics["genres"]), f"F1 of each genre, with its {interval_of(metrics)}"),
        _genre_table(metrics["genres"]),
        _picture(plots.confusion_matrix(metrics["confusion"], genres), "Which genre is told as which"),
        _picture(
            plots.reliability(metrics["reliability"], metrics["calibration_error"]),
            "How often it is right when it is so sure",
        ),
        _picture(plots.coverage(metrics["coverage"]), "Accuracy when only the surest answers are kept"),
        _picture(plots.history(card["history"]), "Training: accuracy and loss against epochs"),
        _mistakes(rows, genres),
        f"<details><summary>Data, settings and versions</summary><pre>{_text(_small_print(card))}</pre></details>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def _text(value: Any) -> str:
    return html.escape(str(value))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _picture(figure: Any, caption: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    code = base64.b64encode(data.getvalue()).decode("ascii")
    words = _text(caption)
    return f'<figure><img alt="{words}" src="data:image/png;base64,{code}"><figcaption>{words}</figcaption></figure>'


def _share(value: float) -> str:
    return f"{value:.1%}"


def _span(pair: Sequence[float], share: bool = True) -> str:
    low, high = pair
    return f"{low:.1%} to {high:.1%}" if share else f"{low:.3f} to {high:.3f}"


def _headline(m: dict[str, Any]) -> str:
    rows = [
        ("accuracy", _share(m["accuracy"]), _span(m["accuracy_95"])),
        ("macro F1", _share(m["macro_f1"]), _span(m["macro_f1_95"])),
        ("log loss", f"{m['log_loss']:.3f}", ""),
        ("calibration error", f"{m['calibration_error']:.3f}", _span(m["calibration_error_95"], share=False)),
        ("the same, were it perfectly calibrated", f"{m['calibration_noise']:.3f}", ""),
        ("accuracy on the surest 60%", _share(m["surest_60"]), _span(m["surest_60_95"])),
        ("told as unknown", _share(m["unknown"]), ""),
    ]
    return f"<h2>{m['tracks']} tracks</h2>" + _table(("", "", interval_of(m)), rows)


def _genre_table(genres: dict[str, Any]) -> str:
    rows = []
    for genre, m in genres.items():
        scores = (f"{m[name]:.0%} ({_span(m[name + '_95'])})" for name in ("recall", "precision", "f1"))
        rows.append((genre, str(m["tracks"]), *scores))
    return _table(("genre", "tracks", "recall", "precision", "F1"), rows)


def _mistakes(rows: Sequence[dict[str, Any]], genres: Sequence[str]) -> str:
    wrong = []
    for row in rows:
        guess = genres[max(range(len(genres)), key=row["probabilities"].__getitem__)]
        if guess != row["genre"]:
            wrong.append((row["track"], row["genre"], guess, f"{row['confidence']:.0%}"))
    wrong.sort(key=lambda row: -float(row[3].rstrip("%")))
    table = _table(("track", "true genre", "best guess", "confidence"), wrong)
    return f"<details><summary>{len(wrong)} mistakes, the surest first</summary>{table}</details>"


def _small_print(card: dict[str, Any]) -> str:
    data = {name: value for name, value in card["data"].items() if name != "split"}
    return json.dumps({"data": data, "config": card["config"], "versions": card["versions"]}, indent=1)
