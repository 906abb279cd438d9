"""Rows -> a table on disk, Parquet, CSV or JSON lines by the name's ending; whole, or as it was before."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from musicclass.errors import LibraryError, require
from musicclass.files import write_atomically
from musicclass.library.journal import Row

ROWS_AT_ONCE = 10_000  # of Parquet's row groups


def check_output(path: Path) -> None:
    """Raises LibraryError or MissingExtraError for a name that can't be written to."""
    if path.suffix.lower() not in WRITERS:
        raise LibraryError(f"{path}: its ending has to be one of {', '.join(WRITERS)}")
    if path.is_dir():
        raise LibraryError(f"{path}: is a folder; give the name of a file")
    if path.suffix.lower() == ".parquet":
        require("pyarrow", "library")


def columns(genres: Sequence[str], timeline: bool) -> list[str]:
    """The table's columns; `p_…` are probabilities."""
    shares = [f"p_{genre}" for genre in genres]
    told = ["duration", "genre", "best_guess", "confidence", "familiarity"]
    return ["path", "size", "modified", *told, *shares, *["segments"] * timeline, "model", "status", "error"]


def write(path: Path, rows: Iterable[Row], genres: Sequence[str], timeline: bool) -> None:
    """Write rows, as `plain` makes them, to a file that takes its place when it is whole."""
    with write_atomically(path) as file:
        WRITERS[path.suffix.lower()](file, rows, genres, timeline)


def plain(row: Row, names: Sequence[str]) -> Row:
    """A journal's row as the table's: all columns, None where there is nothing, times as text, paths as UTF-8.

    Bytes of a path that are no UTF-8 become \\udc80 to \\udcff.
    """
    at = datetime.fromtimestamp(row["modified"] / 1e9, UTC).isoformat() if row["modified"] >= 0 else None
    path = row["path"].encode("utf-8", "backslashreplace").decode("utf-8")
    return {name: row.get(name) for name in names} | {"path": path, "modified": at}


def original_path(path: str) -> str:
    """A table's path as it is on disk."""
    if os.path.exists(path):
        return path
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), path)


def _csv(file: IO[bytes], rows: Iterable[Row], genres: Sequence[str], timeline: bool) -> None:
    with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        table = csv.DictWriter(text, columns(genres, timeline))
        table.writeheader()
        for row in rows:
            segments = {"segments": json.dumps(row["segments"])} if row.get("segments") else {}
            table.writerow(row | segments)


def _jsonl(file: IO[bytes], rows: Iterable[Row], genres: Sequence[str], timeline: bool) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def schema(genres: Sequence[str], timeline: bool) -> Any:
    """The table's columns as Arrow's types."""
    import pyarrow as pa

    segment = {"start": pa.float64(), "end": pa.float64(), "genre": pa.string(), "confidence": pa.float64()}
    text = {"path", "genre", "best_guess", "model", "status", "error"}
    kinds: dict[str, Any] = {"size": pa.int64(), "modified": pa.timestamp("us", "UTC")}
    kinds["segments"] = pa.list_(pa.struct(list(segment.items())))
    names = columns(genres, timeline)
    return pa.schema([(name, pa.string() if name in text else kinds.get(name, pa.float64())) for name in names])


def arrow_table(rows: Sequence[Row], genres: Sequence[str], timeline: bool) -> Any:
    """Plain rows as an Arrow table."""
    import pyarrow as pa

    times = ({"modified": datetime.fromisoformat(row["modified"]) if row["modified"] else None} for row in rows)
    timed = [row | time for row, time in zip(rows, times, strict=True)]
    return pa.Table.from_pylist(timed, schema(genres, timeline))


def _parquet(file: IO[bytes], rows: Iterable[Row], genres: Sequence[str], timeline: bool) -> None:
    import pyarrow.parquet

    some: list[Row] = []
    with pyarrow.parquet.ParquetWriter(file, schema(genres, timeline), compression="zstd") as table:
        for row in rows:
            some.append(row)
            if len(some) == ROWS_AT_ONCE:
                table.write_table(arrow_table(some, genres, timeline))
                some = []
        if some:
            table.write_table(arrow_table(some, genres, timeline))


WRITERS: dict[str, Callable[[IO[bytes], Iterable[Row], Sequence[str], bool], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
