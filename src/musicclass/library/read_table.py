"""Tables that `musicclass library` has written -> rows."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from musicclass.errors import LibraryError, import_optional
from musicclass.library.results import Row

MAX_PATH = 32_767  # characters, of Windows; other systems have less
CREATE_HINT = "musicclass library FOLDER --out genres.parquet"


@contextlib.contextmanager
def naming_table(path: Path) -> Iterator[None]:
    """Turn what `read_rows` and its caller raise for a file that isn't a table into a LibraryError that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or error  # Arrow's are ValueErrors
        cause = f"column {error} is missing" if isinstance(error, KeyError) else cause
        cause = "nested too deeply" if isinstance(error, RecursionError) else cause
        hint = f"make one: {CREATE_HINT}"
        raise LibraryError(f"{path}: can't be read as a table of musicclass ({cause}); {hint}") from None


def read_rows(path: Path, columns: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a table, with all `columns` that it has; without these, with all but `segments`.

    Values are as the format has them; embeddings are arrays (d,), or None. Raises LibraryError for another suffix,
    MissingExtraError, and what readers raise: see `naming_table`.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv", ".jsonl"):
        raise LibraryError(f"{path}: not a table of musicclass; its name has to end in .parquet, .csv or .jsonl")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    if suffix == ".parquet":
        yield from _read_parquet(path, columns)
        return
    csv.field_size_limit(2**31 - 1)  # a track's segments are one field
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = (line for line in file if line.strip())
        for row in csv.DictReader(file) if suffix == ".csv" else map(json.loads, lines):
            _check_row(row)
            vector = row.pop("embedding", None)
            yield row | {"embedding": np.array(vector, np.float32) if vector else None}


def _check_row(row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError("a row isn't an object")
    file = str(row.get("file") or "")
    if len(file) > MAX_PATH or "\0" in file:
        raise ValueError(f"a row's file name has {len(file):,} characters, or NUL; {MAX_PATH:,} are possible")


def _read_parquet(path: Path, columns: Collection[str]) -> Iterator[Row]:
    parquet = import_optional("pyarrow.parquet", "library")
    with parquet.ParquetFile(path) as table:
        names = [name for name in table.schema_arrow.names if name in columns or (not columns and name != "segments")]
        for batch in table.iter_batches(columns=names):
            rows = batch.drop_columns([name for name in names if name == "embedding"]).to_pylist()
            vectors = batch.column("embedding") if "embedding" in names else itertools.repeat(None)
            for row, vector in zip(rows, vectors, strict=False):  # as lists, embeddings would take seconds
                _check_row(row)
                yield row | {"embedding": vector.values.to_numpy() if vector is not None and vector.is_valid else None}
