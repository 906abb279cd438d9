"""`musicclass similar`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from musicclass.cli.options import ModelOption
from musicclass.errors import ModelError, escape_control_chars
from musicclass.saved_model import DEFAULT_MODEL


def similar(
    song: Annotated[Path, typer.Argument(help="A song; it need not be in the table.", metavar="SONG")],
    table: Annotated[
        Path, typer.Option("--library", help="A table (.parquet or .jsonl) made by `library --embeddings`.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of songs.")] = 20,
    m3u8: Annotated[Path | None, typer.Option(help="Write a playlist, which starts with SONG.")] = None,
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """Find the songs of a library that sound most like a song."""
    from musicclass.files import write_text
    from musicclass.library.similar import Song, SongIndex, playlist

    index = SongIndex.load(table)
    file = os.path.abspath(song)
    songs, duration = index.nearest_to_file(file, top), -1.0
    if songs is None:
        from musicclass.classifier import Classifier

        prediction = Classifier.load(model).predict(song)
        if prediction.embedding is None:
            raise ModelError(f"{model}: has no embeddings; choose --model music, built with its tagger")
        songs, duration = index.nearest(prediction.embedding, top), prediction.duration
    for neighbor in songs:
        print(escape_control_chars(f"{neighbor.similarity:.2f}  {neighbor.genre:<12}{neighbor.file}"))
    if not songs:
        print("no other song in the table", file=sys.stderr)
    if m3u8:
        write_text(m3u8, playlist([Song(file, "", duration, 1.0), *songs]))
        print(f"{m3u8} written", file=sys.stderr)
