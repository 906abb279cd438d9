"""Colors of genres: the same in plots, tables and the web UI."""

from __future__ import annotations

from collections.abc import Sequence

# Chosen to remain distinct with common forms of color blindness; a thirteenth genre repeats the first color.
COLORS = (
    "#4477aa", "#cc9933", "#66aa55", "#ee6677", "#8855aa",
    "#44bbcc", "#555555", "#ee99bb", "#999933", "#bb4422",
    "#223366", "#117744",
)  # fmt: skip
SILENT, UNKNOWN = "#dddddd", "#aaaaaa"


def genre_color(genre: str | None, genres: Sequence[str]) -> str:
    """The genre's color as #rrggbb; grey for "unknown", light grey for None (silence)."""
    if genre is None or genre not in genres:
        return UNKNOWN if genre else SILENT
    return COLORS[sorted(genres).index(genre) % len(COLORS)]
