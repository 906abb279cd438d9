"""Rows -> a table: Parquet, CSV or JSON lines by the suffix of its name; written as a whole or not at all.

Its columns are the fields of a Prediction, with one column prob_<genre> for each genre, and those of the file.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from musicclass.errors import LibraryError, import_optional
from musicclass.files import write_atomically
from musicclass.library import file_tags
from musicclass.library.results import Row
from musicclass.prediction import Prediction, Segment

FILE_COLUMNS = (*file_tags.COLUMNS, "size", "modified", "map_x", "map_y", "status", "error")
TEXT_COLUMNS = ("file", "title", "artist", "genre_tag", "genre", "top_genre", "model", "tags", "status", "error")
DECIMALS = 4  # of embeddings, whose values are about 1
ROW_GROUP = 10_000  # rows of Parquet that are in memory at once


def check_output(path: Path, embeddings: bool = False) -> None:
    """Raises LibraryError or MissingExtraError when no table can be written to `path`."""
    if path.suffix.lower() not in WRITERS:
        raise LibraryError(f"{path}: the suffix has to be one of {', '.join(WRITERS)}")
    if embeddings and path.suffix.lower() == ".csv":
        raise LibraryError(f"{path}: --embeddings needs a table in .parquet or .jsonl")
    if path.is_dir():
        raise LibraryError(f"{path}: a folder; give the name of a file")
    if path.suffix.lower() == ".parquet":
        import_optional("pyarrow", "library")


def prediction_row(prediction: Prediction, segments: bool) -> Row:
    """A prediction as a row, with prob_<genre> in place of `probabilities`, and `tags` joined by commas."""
    row: Row = (prediction if segments else dataclasses.replace(prediction, segments=())).to_dict()
    probabilities = {f"prob_{genre}": value for genre, value in row.pop("probabilities").items()}
    row["tags"] = ", ".join(prediction.tags)
    if prediction.embedding is not None:
        row["embedding"] = prediction.embedding.astype(float).round(DECIMALS).tolist()
    return row | probabilities


def columns(genres: Sequence[str], segments: bool, embeddings: bool) -> list[str]:
    """The names of a table's columns."""
    omitted = {"segments": not segments, "embedding": not embeddings}
    names = [field.name for field in dataclasses.fields(Prediction) if not omitted.get(field.name)]
    index = names.index("probabilities")
    names[index : index + 1] = [f"prob_{genre}" for genre in genres]
    return [*names, *FILE_COLUMNS]


def table_row(row: Row, names: Sequence[str]) -> Row:
    """A stored row as one of the table: all columns, times in ISO 8601 (UTC), and the file's `table_name`."""
    modified = datetime.fromtimestamp(row["modified"] / 1e9, UTC).isoformat() if row["modified"] >= 0 else None
    return {name: row.get(name) for name in names} | {"file": table_name(row["file"]), "modified": modified}


def table_name(file: str) -> str:
    """The name of a file in a table, in UTF-8; bytes that aren't become \\udc80 to \\udcff."""
    name = os.fsencode(file).decode("utf-8", "surrogateescape")  # whatever the locale's encoding
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def write(path: Path, rows: Iterable[Row], names: Sequence[str]) -> None:
    """Write rows of `table_row` to a file, atomically."""
    with write_atomically(path) as file:
        WRITERS[path.suffix.lower()](file, rows, names)


def _write_csv(file: IO[bytes], rows: Iterable[Row], names: Sequence[str]) -> None:
    with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        table = csv.DictWriter(text, names)
        table.writeheader()
        for row in rows:
            texts = {name: _disarm(row.get(name)) for name in file_tags.COLUMNS}
            table.writerow(row | texts | ({"segments": json.dumps(row["segments"])} if row.get("segments") else {}))


def _disarm(value: Any) -> Any:
    """A value of a file's tags; with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{value}" if str(value).startswith(("=", "+", "-", "@")) else value


def _write_jsonl(file: IO[bytes], rows: Iterable[Row], names: Sequence[str]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _write_parquet(file: IO[bytes], rows: Iterable[Row], names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    genres = [name.removeprefix("prob_") for name in names if name.startswith("prob_")]
    types = dict.fromkeys(TEXT_COLUMNS, pa.string()) | {
        "size": pa.int64(),
        "year": pa.int32(),
        "modified": pa.timestamp("us", "UTC"),
    }
    types["probabilities"] = pa.struct([(genre, pa.float64()) for genre in genres])
    fields = [(field.name, types.get(field.name, pa.float64())) for field in dataclasses.fields(Segment)]
    types |= {"segments": pa.list_(pa.struct(fields)), "embedding": pa.list_(pa.float32())}
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in names])
    rows = ({**row, "modified": row["modified"] and datetime.fromisoformat(row["modified"])} for row in rows)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as table:
        while group := list(itertools.islice(rows, ROW_GROUP)):
            table.write_table(pa.Table.from_pylist(group, schema))


WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
