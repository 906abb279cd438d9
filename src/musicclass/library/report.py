"""One HTML page about a whole library; it needs no other file and no network."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from musicclass.library.results import Row
from musicclass.page import render_report
from musicclass.palette import genre_color

MAX_ROWS = 20_000  # of the page's table: failed files, then the least confident predictions
BINS = 20  # of the histogram of confidence
COLUMNS = ("file", "genre", "confidence", "duration", "status", "error", "tags")
MAIN, SCRIPT = (Path(__file__).with_name(name) for name in ("report.html", "report.js"))


def html_report(
    rows: Iterable[Row], predicted: Counter[str], failures: Counter[str], genres: Sequence[str], model: str
) -> str:
    """The page about rows of table_row, whose genres and failures are counted; MAX_ROWS are in memory at once."""
    histogram, seconds = [0] * BINS, 0.0

    def count(row: Row) -> Row:
        nonlocal seconds
        if row["genre"] is not None:
            seconds += row["duration"]
            histogram[min(BINS - 1, int(row["confidence"] * BINS))] += 1
        return row

    shown = heapq.nsmallest(
        MAX_ROWS, map(count, rows), key=lambda row: -1.0 if row["genre"] is None else row["confidence"]
    )
    data = {
        "model": model,
        "files": predicted.total() + failures.total(),
        "hours": seconds / 3600,
        "genres": predicted.most_common(),
        "failures": failures.most_common(),
        "histogram": histogram,
        "colors": {genre: genre_color(genre, genres) for genre in genres},
        "rows": [[row.get(name) for name in COLUMNS] for row in shown],
    }
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # no </script> inside the script element
    main = f'{MAIN.read_text(encoding="utf-8")}<script type="application/json" id="data">{text}</script>'
    return render_report("library", main, SCRIPT.read_text(encoding="utf-8"))
