"""Routes of a library's table: overview, map, songs, their audio, and corrections."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from musicclass.audio_files import AUDIO_SUFFIXES, unescape_path
from musicclass.library.remote import is_remote
from musicclass.prediction import UNKNOWN
from musicclass.server.library_table import LibraryTable, LibraryTrack
from musicclass.server.problem_details import ProblemError
from musicclass.text import plural

Row = Annotated[int, Path(ge=0, lt=2**31)]
Order = Literal["least_confident", "most_confident", "path", "genre"]
Text = Annotated[str, Query(max_length=200, description="Words that the path contains")]
Genre = Annotated[str, Query(max_length=100)]
Corrected = Annotated[bool | None, Query(description="Only corrected songs, or only others")]
Offset = Annotated[int, Query(ge=0, lt=2**31)]
Limit = Annotated[int, Query(ge=1, le=500)]


@dataclass(frozen=True)
class LibraryOverview:
    """The numbers of songs; with corrections."""

    name: str
    songs: int
    failed: dict[str, int]  # files without a genre, by status
    genres: dict[str, int]  # the most frequent first
    model_genres: list[str]
    corrected: int


@dataclass(frozen=True)
class LibraryPage:
    """A page of the songs that match; `total` counts all."""

    total: int
    songs: list[LibraryTrack]


class Correction(BaseModel):
    """The song's genre according to the user."""

    genre: str = Field(
        min_length=1, max_length=100, pattern=r"^[^\s=+\-@](.*\S)?$", description="of the model, or any other"
    )
    path: str | None = Field(None, description="the song's; 409 when the row is another song's by now")


def make_router(table: LibraryTable) -> APIRouter:
    """/v1/library and below."""
    router = APIRouter(prefix="/v1/library", tags=["library"])
    _add_songs(router, table)

    @router.get("")
    def overview() -> LibraryOverview:
        """The numbers of songs, by genre, and of files without a genre."""
        genres, corrected = table.counts(), len(table.corrections.read())
        return LibraryOverview(table.path.name, sum(genres.values()), table.failed, genres, table.genres, corrected)

    @router.get("/map")
    def library_map() -> dict[str, Any]:
        """Songs in the plane (lists of equal length): close together where their probabilities are similar."""
        return table.map()

    @router.get("/corrections", response_class=Response)
    def corrections() -> Response:
        """All corrections as CSV (track, genre, predicted), which `musicclass train` reads."""
        disposition = {"Content-Disposition": 'attachment; filename="corrections.csv"'}
        return Response(table.corrections.text(), headers=disposition, media_type="text/csv")

    return router


def _add_songs(router: APIRouter, table: LibraryTable) -> None:
    @router.get("/songs")
    def songs(
        order: Order = "least_confident", text: Text = "", genre: Genre = "", corrected: Corrected = None,
        offset: Offset = 0, limit: Limit = 50,
    ) -> LibraryPage:  # fmt: skip
        """The songs that match, in an order."""
        matching = table.find(text, genre, corrected, order)
        return LibraryPage(len(matching), matching[offset : offset + limit])

    @router.get("/songs/{row}")
    def song(row: Row) -> LibraryTrack:
        """One song."""
        return _track(table, row)

    @router.get("/songs/{row}/audio", response_class=FileResponse)
    def audio(row: Row) -> FileResponse:
        """A song's file, or a range of it, if it is a local file with an audio suffix."""
        track = _track(table, row)
        path = pathlib.Path(unescape_path(track.path))
        is_audio = not is_remote(track.path) and path.suffix.lower() in AUDIO_SUFFIXES
        if not (is_audio and path.is_file()):
            raise ProblemError(404, "out_of_reach", f"{track.path}: can't be read by this machine")
        return FileResponse(path)

    @router.put("/songs/{row}/correction")
    def correct(row: Row, correction: Correction) -> LibraryTrack:
        """Save a genre; the table itself stays as it is."""
        genre = correction.genre
        if genre.lower() == UNKNOWN or not genre.isprintable():
            raise ProblemError(422, "invalid_genre", f"{genre!r} can't be the name of a genre; choose another")
        return _correct(table, row, correction.path, genre)

    @router.delete("/songs/{row}/correction")
    def delete_correction(row: Row, path: str | None = None) -> LibraryTrack:
        """Delete a correction; with `path`, 409 when the row is another song's by now."""
        return _correct(table, row, path, None)


def _track(table: LibraryTable, row: int) -> LibraryTrack:
    tracks = table.tracks()
    if row >= len(tracks):
        raise ProblemError(404, "no_such_song", f"the library has {plural(len(tracks), 'song')}")
    return tracks[row]


def _correct(table: LibraryTable, row: int, path: str | None, genre: str | None) -> LibraryTrack:
    track = _track(table, row)
    if path not in (None, track.path):
        raise ProblemError(409, "another_song", f"the table has changed: row {row} is {track.path}; reload the page")
    try:
        table.corrections.write(track.path, genre, track.genre)
    except OSError as error:
        detail = f"{table.corrections.path}: can't be written ({error.strerror}); is the disk full or read-only?"
        raise ProblemError(507, "not_saved", detail) from None
    return replace(track, correction=genre)
