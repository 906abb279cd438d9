"""One HTML page about a whole library; it needs no other file and no network."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from musicclass.library.results import Row
from musicclass.page import render_report
from musicclass.palette import genre_color

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
    data = {
        "model": model,
        "files": predicted.total() + failures.total(),
        "hours": seconds / 3600,
        "genres": predicted.most_common(),
        "failures": failures.most_common(),
        "histogram": histogram,
        "colors": {genre: genre_color(genre, genres) for genre in genres},
    }
    text = f'{_compact(data)[:-1]},"rows":[{ROWS}]}}'
    main = f'{MAIN.read_text(encoding="utf-8")}<script type="application/json" id="data">{text}</script>'
    before, after = render_report("library", main, SCRIPT.read_text(encoding="utf-8")).split(ROWS)
    return "".join([before, *parts, after])  # rows may have many megabytes, which are copied once


def _shown(row: Row, name: str) -> Any:
    value = row.get(name)
    return round(value, DECIMALS[name]) if name in DECIMALS and value is not None else value


def _compact(value: Any) -> str:
    """JSON without spaces, and without </script>, which would end the script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
