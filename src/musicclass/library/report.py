"""One HTML page on a whole library; it needs no other file and no network."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from musicclass.library.journal import Row
from musicclass.plots import colour

MOST_ROWS = 20_000  # of failed files and, of the others, the least sure, that the page's table holds
STEPS = 20  # of the confidence's histogram
TEMPLATE = Path(__file__).with_name("report.html")


def page(rows: Iterable[Row], genres: Sequence[str], model: str) -> str:
    """The report on rows as writers.plain makes them; no more of them than MOST_ROWS are held at once."""
    told: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    sure, files, seconds = [0] * STEPS, 0, 0.0

    def counted() -> Iterable[Row]:
        nonlocal files, seconds
        for row in rows:
            files += 1
            if row["genre"] is None:
                failures[row["status"]] += 1
            else:
                told[row["genre"]] += 1
                seconds += row["duration"]
                sure[min(STEPS - 1, int(row["confidence"] * STEPS))] += 1
            yield row

    least = heapq.nsmallest(MOST_ROWS, counted(), key=lambda row: -1.0 if row["genre"] is None else row["confidence"])
    data: dict[str, Any] = {
        "model": model,
        "files": files,
        "hours": seconds / 3600,
        "genres": told.most_common(),
        "failures": failures.most_common(),
        "sure": sure,
        "colours": {genre: colour(genre, genres) for genre in genres},
        "rows": [[_short(row[name]) for name in ("path", "genre", "confidence", "duration", "status", "error")]
                 for row in least],
    }  # fmt: skip
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
