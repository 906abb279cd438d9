"""The user's corrections of a table, in a CSV beside it."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable
from pathlib import Path

from musicclass.errors import LibraryError
from musicclass.files import write_text

CORRECTION_COLUMNS = ("track", "genre", "predicted")  # `musicclass train` reads track and genre


class Corrections:
    """Genres by path, in a CSV that others may edit as well: it is read for each request, and written as a whole."""

    def __init__(self, table: Path):
        self.path = Path(f"{table}.corrections.csv")
        self._lock = threading.Lock()

    def read(self) -> dict[str, str]:
        """The corrected genre of each track. Raises LibraryError when the file can't be read."""
        return {track: row["genre"] for track, row in self._rows()[1].items() if row["genre"]}

    def write(self, tracks: Iterable[tuple[str, str]], genre: str | None) -> None:
        """Save the genre of tracks, given with their predicted ones, or, with None, delete it.

        Raises OSError and LibraryError, and then nothing has changed.
        """
        with self._lock:
            columns, rows = self._rows()
            for track, predicted in tracks:
                row = rows.pop(track, {})
                if genre is not None:
                    rows[track] = row | {"track": track, "genre": genre, "predicted": predicted}
            write_text(self.path, self._format(columns, rows))

    def text(self) -> str:
        """The corrections as CSV. Raises LibraryError as `read` does."""
        return self._format(*self._rows())

    @staticmethod
    def _format(columns: list[str], rows: dict[str, dict[str, str]]) -> str:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows[track] for track in sorted(rows))
        return text.getvalue()

    def _rows(self) -> tuple[list[str], dict[str, dict[str, str]]]:
        """Its columns, among them CORRECTION_COLUMNS, and its rows by track."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file, restval="")
                rows = {row["track"]: {"genre": "", **row} for row in table}
                return list(dict.fromkeys((*CORRECTION_COLUMNS, *(table.fieldnames or ())))), rows
        except FileNotFoundError:
            return list(CORRECTION_COLUMNS), {}
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            hint = "repair it, or move it away"
            cause = f"column {error} is missing" if isinstance(error, KeyError) else error
            raise LibraryError(f"{self.path}: can't be read as corrections ({cause}); {hint}") from None
