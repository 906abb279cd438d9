"""One HTML page about a whole library; it needs no other file and no network."""

from __future__ import annotations

import html
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from musicclass.library.results import Row
from musicclass.page import render_report
from musicclass.palette import genre_color
from musicclass.text import plural

ROWS = "<rows>"  # where the rows come
BATCH = 1_000  # rows
BINS = 20  # of the histogram of confidence
COLUMNS = ("file", "genre", "confidence", "duration", "status", "error", "tags")
DECIMALS = {"confidence": 3, "duration": 0}
MAIN, SCRIPT = (Path(__file__).with_name(name) for name in ("report.html", "report.js"))


def html_report(
    rows: Iterable[Row], predicted: Counter[str], failures: Counter[str], genres: Sequence[str], model: str
) -> str:
    """The page about rows of table_row, whose genres and failures are counted."""
    histogram, seconds, parts = [0] * BINS, 0.0, list[str]()
    rows = iter(rows)
    while batch := list(itertools.islice(rows, BATCH)):
        for row in batch:
            if row["genre"] is not None:
                seconds += row["duration"]
                histogram[min(BINS - 1, int(row["confidence"] * BINS))] += 1
        lines = (_compact([_shown(row, name) for name in COLUMNS]) for row in batch)
        parts += "," * bool(parts), ",".join(lines)
    colors = {genre: genre_color(genre, genres) for genre in [*genres, *predicted]}
    n_files = predicted.total() + failures.total()
    failed = _bars(failures, n_files, dict.fromkeys(failures, "var(--bad)"))
    main = Template(MAIN.read_text(encoding="utf-8")).substitute(
        about=f"{plural(n_files, 'file')}, {seconds / 3600:,.1f} hours of music; model {html.escape(model)}",
        genres=_bars(predicted, n_files, colors),
        failures=failed and f'<section class="panel"><h2>Failed</h2><ul class="bars shares">{failed}</ul></section>',
        histogram=_histogram(histogram),
        histogram_text=f"Files by confidence, in steps of {100 // BINS}%: {', '.join(map(str, histogram))}",
    )
    text = f'{_compact({"colors": colors})[:-1]},"rows":[{ROWS}]}}'
    main += f'<script type="application/json" id="data">{text}</script>'
    before, after = render_report("library", main, SCRIPT.read_text(encoding="utf-8")).split(ROWS)
    return "".join([before, *parts, after])  # rows may have many megabytes, which are copied once


def _bars(counts: Counter[str], n_files: int, colors: Mapping[str, str]) -> str:
    """List items of names with their shares of all files, the largest first."""
    largest = max(counts.values(), default=1)
    return "".join(
        f'<li style="--genre: {colors[name]}"><span>{html.escape(name)}</span>'
        f'<span class="bar" aria-hidden="true"><i style="width: {n / largest:.1%}"></i></span>'
        f"<span>{n:,} · {n / n_files:.1%}</span></li>"
        for name, n in counts.most_common()
    )


def _histogram(counts: list[int]) -> str:
    step, largest = 100 // len(counts), max(1, *counts)
    return "".join(
        f'<i style="height: {n / largest:.1%}" title="{plural(n, "file")} from {i * step}% to {(i + 1) * step}%"></i>'
        for i, n in enumerate(counts)
    )


def _shown(row: Row, name: str) -> Any:
    value = row.get(name)
    return round(value, DECIMALS[name]) if name in DECIMALS and value is not None else value


def _compact(value: Any) -> str:
    """JSON without spaces, and without </script>, which would end the script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
