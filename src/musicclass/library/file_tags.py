"""What the tags of a file say about its song."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from musicclass.audio_decoders import open_container
from musicclass.library.results import Row

COLUMNS = ("title", "artist", "year", "genre_tag")
MAX_LENGTH = 200  # characters of a text
YEAR = re.compile(r"(?:1[89]|20)\d\d")


def read_file_tags(path: str) -> Row:
    """COLUMNS of a local file: texts, and the year of its date as a number; None for what it doesn't say."""
    metadata: dict[str, str] = {}
    if Path(path).is_file():  # a pipe would block
        with contextlib.suppress(Exception), open_container(path) as container:
            for part in (container.streams.audio[0].metadata, container.metadata):
                metadata |= {name.casefold(): " ".join(value.split())[:MAX_LENGTH] for name, value in part.items()}
    date = YEAR.search(metadata.get("date") or metadata.get("year") or "")
    texts = {
        column: metadata.get(name) or None
        for column, name in zip(COLUMNS, ("title", "artist", "", "genre"), strict=True)
    }
    return texts | {"year": date and int(date[0])}
