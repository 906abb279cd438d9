"""What is known of each file, beside the output: a run that was stopped goes on from it, however it was stopped.

SQLite keeps it: each result is written when it comes, and survives kill -9 and a full disk. The lock
on it goes with the process, so a second run on the same output finds out.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from musicclass.errors import LibraryError

Row = dict[str, Any]
PAGE = 1_000  # paths that are held in memory at once

TABLES = """
create table if not exists files (
    path blob primary key,
    size integer not null, modified integer not null,  -- modified: ns since 1970, -1: can't be looked at
    run integer not null,   -- the last run that came by this file
    done text,              -- what the row was made from: size, modified, and the run's settings
    failed integer not null default 0,
    row text
) without rowid;
create table if not exists runs (run integer primary key)
"""


class Journal:
    """Files that a run has come by, and their rows."""

    def __init__(self, path: Path, settings: tuple[str, str], any_rest: bool = False):
        """Open or begin the journal at `path`; rows that were made with other `settings` (see run.Options) count as
        not done, or, with `any_rest`, those of another model.

        Raises LibraryError when another run holds it, or it isn't one, and OSError when it can't be written.
        """
        self.path, self.settings = path, "-".join(settings)
        self.accepted = settings[0] if any_rest else self.settings
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}; choose another place") from None
        try:
            self._db.execute("pragma locking_mode = exclusive")
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.execute("begin exclusive")
            for statement in TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute("insert into runs default values")
            (self.run,) = self._db.execute("select max(run) from runs").fetchone()
            self._db.execute("commit")
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" not in str(error):
                raise OSError(f"{path}: {error}") from None
            raise LibraryError(f"{path}: another run is at work on it; let that end, or choose another --out") from None
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise LibraryError(f"{path}: not a journal ({error}); delete it to start over") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise OSError(f"{self.path}: {error}; make room, and give the same command again") from error

    def see(self, files: Iterable[tuple[str, int, int]]) -> None:
        """Note the files that there are now: path, size in bytes, time of modification in ns."""
        statement = """
            insert into files (path, size, modified, run) values (?, ?, ?, ?)
            on conflict do update set size = excluded.size, modified = excluded.modified, run = excluded.run
        """
        self._db.execute("begin")
        self._db.executemany(statement, ((os.fsencode(path), size, at, self.run) for path, size, at in files))
        self._db.execute("commit")

    def count(self, retry: bool = False) -> tuple[int, int]:
        """How many of this run's files there are, and how many are to do; with `retry`, failed ones again."""
        return self._one("count(*)", "1"), self._one("count(*)", self._to_do(retry))

    def pending(self, retry: bool = False) -> Iterator[str]:
        """The files to do, in order of path."""
        where, last = f"path > ? and run = ? and {self._to_do(retry)}", b""
        while page := self._db.execute(f"select path from files where {where} order by path limit {PAGE}",
                                       (last, self.run)).fetchall():  # fmt: skip
            last = page[-1][0]
            for (path,) in page:
                yield os.fsdecode(path)

    def record(self, path: str, row: Row, failed: bool) -> None:
        """Keep a file's row."""
        done = f"update files set done = {self._now(self.settings)}, failed = ?, row = ? where path = ?"
        self._db.execute(done, (failed, json.dumps(row), os.fsencode(path)))

    def rows(self) -> Iterator[Row]:
        """Everything that is known of this run's files, in order of path; of files still to do, nothing."""
        columns = "path, size, modified, row"
        for path, size, modified, row in self._db.execute(
            f"select {columns} from files where run = ? and {self._holds()} order by path", (self.run,)
        ):
            yield {"path": os.fsdecode(path), "size": size, "modified": modified, **json.loads(row)}

    def _now(self, settings: str) -> str:
        """SQL for what `done` says of the file as it is now."""
        return f"(size || ':' || modified || ':{settings}')"

    def _holds(self) -> str:
        now = self._now(self.accepted)
        return f"(done is not null and substr(done, 1, length{now}) = {now})"

    def _to_do(self, retry: bool) -> str:
        return f"(not {self._holds()} {'or failed' if retry else ''})"

    def _one(self, what: str, where: str) -> int:
        (value,) = self._db.execute(f"select {what} from files where run = ? and {where}", (self.run,)).fetchone()
        return int(value)
