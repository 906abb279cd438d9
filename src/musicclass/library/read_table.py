"""Tables that `musicclass library` has written -> columns."""

from __future__ import annotations

import contextlib
import csv
import json
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musicclass.errors import LibraryError, import_optional

Columns = dict[str, npt.NDArray[Any]]
MAX_PATH = 32_767  # characters, of Windows; other systems have less
CREATE_HINT = "musicclass library FOLDER --out genres.parquet"


@contextlib.contextmanager
def naming_table(path: Path) -> Iterator[None]:
    """Turn what `read_columns` and its caller raise for a file that isn't a table into a LibraryError that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or error  # Arrow's are ValueErrors
        cause = f"column {error} is missing" if isinstance(error, KeyError) else cause
        cause = "nested too deeply" if isinstance(error, RecursionError) else cause
        hint = f"make one: {CREATE_HINT}"
        raise LibraryError(f"{path}: can't be read as a table of musicclass ({cause}); {hint}") from None


def read_columns(path: Path, names: Collection[str] = ()) -> Columns:
    """The columns `names` that a table has; without these, all but `segments`.

    Each is an array (n,), with values as the format has them; `embedding` is an array (m, d) of the m rows for which
    `embedded` is true. Raises LibraryError for another suffix, MissingExtraError, and what readers raise: see
    `naming_table`.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv", ".jsonl"):
        raise LibraryError(f"{path}: not a table of musicclass; its name has to end in .parquet, .csv or .jsonl")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    columns = _read_parquet(path, names) if suffix == ".parquet" else _read_text(path, suffix)
    for file in columns.get("file", ()):
        if len(str(file)) > MAX_PATH or "\0" in str(file):
            length = f"{len(str(file)):,} characters, or NUL; {MAX_PATH:,} are possible"
            raise ValueError(f"a row's file name has {length}")
    return columns


def _read_parquet(path: Path, names: Collection[str]) -> Columns:
    parquet = import_optional("pyarrow.parquet", "library")
    present = parquet.read_schema(path).names
    chosen = [name for name in present if name in names or (not names and name != "segments")]
    table = parquet.read_table(path, columns=chosen, partitioning=None)  # on all cores
    columns = {name: table[name].to_numpy() for name in chosen if name != "embedding"}
    if "embedding" in chosen:
        vectors = table["embedding"].combine_chunks()
        sizes = np.nan_to_num(vectors.value_lengths().to_numpy(zero_copy_only=False))
        if len(np.unique(sizes[sizes > 0])) > 1:
            raise ValueError("embeddings differ in size")
        columns["embedded"] = sizes > 0
        columns["embedding"] = vectors.flatten().to_numpy().reshape(-1, int(sizes.max(initial=1)))
    return columns


def _read_text(path: Path, suffix: str) -> Columns:
    csv.field_size_limit(2**31 - 1)  # a track's segments are one field
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = (line for line in file if line.strip())
        for row in csv.DictReader(file) if suffix == ".csv" else map(json.loads, lines):
            if not isinstance(row, dict):
                raise ValueError("a row isn't an object")
            row.pop("segments", None)
            row["embedding"] = np.array(row.get("embedding") or (), np.float32)  # as lists, they take much memory
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns: Columns = {name: np.fromiter((row.get(name) for row in rows), object, len(rows)) for name in names}
    vectors = columns.pop("embedding", ())
    columns["embedded"] = np.array([len(vector) > 0 for vector in vectors], bool)
    if columns["embedded"].any():
        columns["embedding"] = np.stack([vector for vector in vectors if len(vector)])
    return columns
