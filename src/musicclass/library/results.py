"""The results of a library beside its table, so that a run continues where the last one stopped, however it stopped.

SQLite keeps them: each result is committed when it comes, and survives kill -9 and a full disk. Its lock ends with
the process, so a second run on the same table fails at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from musicclass.errors import LibraryError

Row = dict[str, Any]
BATCH = 1_000  # file names that are in memory at once

TABLES = """
create table if not exists files (
    file blob primary key,
    size integer not null,      -- bytes
    modified integer not null,  -- ns since 1970; -1: unknown
    run integer not null,       -- the last run that found this file
    settings text,              -- hashes of model and options that the row was computed with
    failed integer not null default 0,
    row text,                   -- JSON; null: not done
    audio blob,                 -- hash of its encoded audio, where known
    changed integer not null default 0,  -- the file has changed since the row was stored
    listed integer not null default 0,  -- it is in the table
    map_x real, map_y real      -- its position in the map; null: none yet
) without rowid;
create table if not exists runs (run integer primary key)
"""
NEW_COLUMNS = (
    "audio blob",
    "changed integer not null default 0",
    "listed integer not null default 0",
    "map_x real",
    "map_y real",
)


class ResultStore:
    """The files that a run has found, and the rows of those that are done."""

    def __init__(self, path: Path, settings: tuple[str, ...], any_options: bool = False, retry_failed: bool = False):
        """Open or create the store at `path`.

        A row counts as done when it was computed with the same `settings` (see ScanOptions.settings), or more columns;
        with `any_options`, with the same model. With `retry_failed`, failed files are pending,
        too. Raises LibraryError when another run uses the store or `path` is another kind of file, and OSError when it
        can't be written.
        """
        self.path, self._settings = path, "-".join(settings)
        accepted = settings[0] if any_options else "%".join(["-".join(settings[:2]), *settings[2:]])
        self._is_usable = f"(row is not null and settings like '{accepted}%')"
        self._is_current = f"({self._is_usable} and not changed)"
        self._is_pending = f"(not {self._is_current} {'or failed' if retry_failed else ''})"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}; choose another place") from None
        try:
            self._db.executescript(
                "pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = normal;"
                f"begin exclusive; {TABLES}; insert into runs default values; commit"
            )
            (self._run,) = self._db.execute("select max(run) from runs").fetchone()
            self._db.execute("select settings, failed, row from files limit 0")  # of this version
            present = {name for _, name, *_ in self._db.execute("pragma table_info(files)")}
            for column in NEW_COLUMNS:
                if column.split()[0] not in present:
                    self._db.execute(f"alter table files add column {column}")
            self._db.execute("create index if not exists audio on files (audio)")
        except sqlite3.DatabaseError as error:
            self._db.close()
            if "locked" in str(error):
                message = f"{path}: used by another run; wait for its end, or choose another --out"
                raise LibraryError(message) from None
            if isinstance(error, sqlite3.OperationalError) and "no such column" not in str(error):
                raise OSError(f"{path}: {error}") from None
            raise LibraryError(f"{path}: not a store of results ({error}); delete it to start over") from None

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise OSError(f"{self.path}: {error}; free some space, and run the same command again") from error

    def upsert_files(self, files: Iterable[tuple[str, int, int]]) -> None:
        """Add the files of this run: name, size in bytes, time of modification in ns."""
        statement = """
            insert into files (file, size, modified, run) values (?, ?, ?, ?)
            on conflict do update set size = excluded.size, modified = excluded.modified, run = excluded.run,
                changed = changed or (size, modified) != (excluded.size, excluded.modified)
        """
        with self._db:
            self._db.execute("begin")
            self._db.executemany(statement, ((os.fsencode(file), size, at, self._run) for file, size, at in files))

    def count(self) -> tuple[int, int]:
        """The number of this run's files, and of those that are pending."""
        query = f"select count(*), coalesce(sum({self._is_pending}), 0) from files where run = ?"
        total, pending = self._db.execute(query, (self._run,)).fetchone()
        return total, pending

    def pending(self) -> Iterator[str]:
        """The files without a current row, in order of name."""
        query = f"select file from files where file > ? and run = ? and {self._is_pending} order by file"
        batch = [(b"",)]
        while batch := self._db.execute(f"{query} limit {BATCH}", (batch[-1][0], self._run)).fetchall():
            for (file,) in batch:
                yield os.fsdecode(file)

    def record(self, file: str, row: Row, failed: bool, audio: bytes | None = None) -> None:
        """Store a file's row, and the hash of its audio."""
        query = """
            update files set settings = ?, failed = ?, row = ?, audio = ?, changed = 0, map_x = null, map_y = null
            where file = ?
        """
        self._db.execute(query, (self._settings, failed, json.dumps(row), audio, os.fsencode(file)))

    def known_audio(self) -> frozenset[bytes]:
        """The hashes of the audio that has a row of these settings, though its file may be gone."""
        query = f"select distinct audio from files where audio is not null and not failed and {self._is_usable}"
        return frozenset(audio for (audio,) in self._db.execute(query))

    def reuse(self, file: str, audio: bytes, own: Row) -> Row:
        """Give a file the row of another, or of its own earlier version, with the same audio, and `own` columns."""
        query = f"select settings, row from files where audio = ? and not failed and {self._is_usable} limit 1"
        settings, row = self._db.execute(query, (audio,)).fetchone()
        result: Row = json.loads(row) | own
        query = "update files set settings = ?, failed = 0, row = ?, audio = ?, changed = 0 where file = ?"
        self._db.execute(query, (settings, json.dumps(result), audio, os.fsencode(file)))
        self._move_position(file, audio)
        return result

    def _move_position(self, file: str, audio: bytes) -> None:
        """Give a file without a position that of an earlier file with the same audio, which has gone."""
        gone = "from files where audio = ? and map_x is not null and run != ? order by run desc limit 1"
        query = f"select file, map_x, map_y {gone}"
        if position := self._db.execute(query, (audio, self._run)).fetchone():
            moved = "update files set map_x = ?, map_y = ? where file = ? and map_x is null"
            if self._db.execute(moved, (*position[1:], os.fsencode(file))).rowcount:
                self._db.execute("update files set map_x = null, map_y = null where file = ?", position[:1])

    def count_placed(self) -> tuple[int, int]:
        """The number of this run's songs, which are files that are done and haven't failed, and of those in the map."""
        query = f"select count(*), count(map_x) from files where run = ? and {self._is_current} and not failed"
        total, placed = self._db.execute(query, (self._run,)).fetchone()
        return total, placed

    def songs(self, placed: bool) -> Iterator[tuple[str, Row]]:
        """This run's songs that have a position, `map_x` and `map_y`, or none, in order of name; may be changed."""
        condition = f"run = ? and {self._is_current} and not failed and map_x is {'not ' * placed}null"
        query = f"select file, row, map_x, map_y from files where file > ? and {condition} order by file limit {BATCH}"
        name = b""
        while batch := self._db.execute(query, (name, self._run)).fetchall():
            for name, row, x, y in batch:
                yield os.fsdecode(name), json.loads(row) | {"map_x": x, "map_y": y}

    def positions(self) -> Iterator[tuple[float, float]]:
        """The positions of this run's songs."""
        yield from self._db.execute("select map_x, map_y from files where run = ? and map_x is not null", (self._run,))

    def place(self, positions: Iterable[tuple[str, float, float]]) -> None:
        """Store the positions of files."""
        with self._db:
            self._db.execute("begin")
            query = "update files set map_x = ?, map_y = ? where file = ?"
            self._db.executemany(query, ((x, y, os.fsencode(file)) for file, x, y in positions))

    def clear_positions(self) -> None:
        """Forget the positions of all files."""
        self._db.execute("update files set map_x = null, map_y = null where map_x is not null")

    def listed(self) -> int:
        """The number of files in the table, by the last complete run."""
        (count,) = self._db.execute("select coalesce(sum(listed), 0) from files").fetchone()
        return int(count)

    def complete(self) -> None:
        """Note that this run's files are those of the table."""
        self._db.execute("update files set listed = (run = ?) where listed != (run = ?)", (self._run, self._run))

    def rows(self) -> Iterator[Row]:
        """The rows of this run's files that are done, in order of name, with the columns of the file."""
        names = ("file", "size", "modified", "map_x", "map_y")
        query = f"select {', '.join(names)}, row from files where run = ? and {self._is_current} order by file"
        for *values, row in self._db.execute(query, (self._run,)):
            yield {**json.loads(row), **dict(zip(names, values, strict=True)), "file": os.fsdecode(values[0])}
