"""Routes of a library's table: overview, map, songs, their audio, and corrections."""

from __future__ import annotations

import contextlib
import pathlib
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from musicclass.audio_files import AUDIO_SUFFIXES, unescape_path
from musicclass.errors import MissingExtraError
from musicclass.library.covers import read_cover
from musicclass.library.genre_tags import TagError
from musicclass.library.remote import is_remote
from musicclass.library.similar import Song, playlist
from musicclass.library.tags import latest_journal
from musicclass.prediction import UNKNOWN
from musicclass.server.library_table import LibraryTable, LibraryTrack
from musicclass.server.problem_details import ProblemError
from musicclass.text import plural

Row = Annotated[int, Path(ge=0, lt=2**31)]
Order = Literal["least_confident", "most_confident", "path", "genre"]
Text = Annotated[str, Query(max_length=200, description="Words that the path contains")]
Genre = Annotated[str, Query(max_length=100)]
Corrected = Annotated[bool | None, Query(description="Only corrected songs, or only others")]
Disagreeing = Annotated[bool, Query(description="Only songs whose genre isn't among the genre tags of their file")]
GenreName = Annotated[
    str,
    Field(min_length=1, max_length=100, pattern=r"^[^\s=+\-@](.*\S)?$", description="of the model, or any other"),
]
Only = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]] | None, Query(max_length=500, description="Only these, in this order")
]
Offset = Annotated[int, Query(ge=0, lt=2**31)]
Limit = Annotated[int, Query(ge=1, le=500)]
Revision = Annotated[str, Query(description="of the table that the rows are of; 409 when it has changed since")]
COVER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {}}}, 204: {"description": "the song has no cover that can be read"},
}  # fmt: skip
COVER_HEADERS = {"Cache-Control": "private, max-age=600"}


class BinaryResponse(Response):
    """Bytes."""

    media_type = "application/octet-stream"


@dataclass(frozen=True)
class LibraryOverview:
    """The numbers of songs; with corrections."""

    name: str
    songs: int
    failed: dict[str, int]  # files without a genre, by status
    genres: dict[str, int]  # the most frequent first
    model_genres: list[str]
    known_genres: list[str]  # of the model and of corrections, by name
    corrected: int
    embedded: int  # of which similar songs can be found
    tagged: int  # whose files have a genre in their tags, if the table has that column
    revision: str  # of the table: it changes with the file
    write_tags: bool  # the server writes tags, on request
    tags_written: bool  # which can be undone


@dataclass(frozen=True)
class LibraryPage:
    """A page of the songs that match; `total` counts all."""

    total: int
    songs: list[LibraryTrack]


class Rows(BaseModel):
    """Songs by their rows."""

    rows: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(min_length=1)
    revision: Revision = ""


class Corrections(Rows):
    """The genre of several songs according to the user; null deletes it."""

    genre: GenreName | None


@dataclass(frozen=True)
class Saved:
    """What has been corrected."""

    songs: int


class Correction(BaseModel):
    """The song's genre according to the user."""

    genre: GenreName
    path: str | None = Field(None, description="the song's; 409 when the row is another song's by now")


def make_router(table: LibraryTable, write_tags: bool = False) -> APIRouter:
    """/v1/library and below."""
    router = APIRouter(prefix="/v1/library", tags=["library"], dependencies=[Depends(table.refresh)])
    _add_songs(router, table)
    _add_song(router, table)
    _add_selection(router, table)

    @router.get("")
    def overview() -> LibraryOverview:
        """The numbers of songs, by genre, and of files without a genre."""
        genres, corrected = table.counts(), len(table.corrections.read())
        return LibraryOverview(
            table.path.name, len(table), table.failed, genres, table.genres,
            sorted({*table.genres, *genres} - {UNKNOWN}), corrected, len(table.index), table.tagged,
            table.revision, write_tags, write_tags and latest_journal(table.path) is not None,
        )  # fmt: skip

    @router.get("/map", response_class=BinaryResponse)
    def library_map() -> BinaryResponse:
        """Songs in the plane, in binary: see LibraryTable.map."""
        return BinaryResponse(table.map())

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
        disagreeing: Disagreeing = False, rows: Only = None, offset: Offset = 0, limit: Limit = 50,
    ) -> LibraryPage:  # fmt: skip
        """The songs that match, in an order; or, with `rows`, these."""
        if rows is not None:
            return LibraryPage(len(rows), find_tracks(table, rows))
        matching = table.find(text, genre, corrected, disagreeing, order)
        return LibraryPage(len(matching), table.tracks(matching[offset : offset + limit]))

    @router.get("/rows", response_class=BinaryResponse)
    def rows(
        order: Order = "least_confident", text: Text = "", genre: Genre = "", corrected: Corrected = None,
        disagreeing: Disagreeing = False,
    ) -> BinaryResponse:  # fmt: skip
        """The rows of all songs that match, in an order, as uint32 (little-endian)."""
        return BinaryResponse(table.find(text, genre, corrected, disagreeing, order).astype("<u4").tobytes())


def _add_selection(router: APIRouter, table: LibraryTable) -> None:
    @router.post("/playlist", response_class=Response)
    def make_playlist(selection: Rows) -> Response:
        """The songs as an extended M3U playlist (.m3u8), in their order."""
        check_revision(table, selection.revision)
        songs = [Song(track.path, "", track.duration, 1.0) for track in find_tracks(table, selection.rows)]
        disposition = {"Content-Disposition": 'attachment; filename="songs.m3u8"'}
        return Response(playlist(songs), headers=disposition, media_type="audio/x-mpegurl")

    @router.put("/corrections")
    def correct_all(selection: Corrections) -> Saved:
        """Save a genre for all songs of a selection, or delete their corrections."""
        check_revision(table, selection.revision)
        tracks = find_tracks(table, selection.rows)
        _save(table, tracks, selection.genre)
        return Saved(len(tracks))


def check_revision(table: LibraryTable, revision: str) -> None:
    """Raises ProblemError when the rows of a selection may be other songs' by now."""
    if revision not in ("", table.revision):
        raise ProblemError(409, "table_changed", "the table has changed; reload the page, and select the songs again")


def _add_song(router: APIRouter, table: LibraryTable) -> None:
    @router.get("/songs/{row}")
    def song(row: Row) -> LibraryTrack:
        """One song."""
        return _track(table, row)

    @router.get("/songs/{row}/audio", response_class=FileResponse)
    def audio(row: Row) -> FileResponse:
        """A song's file, or a range of it, if it is a local file with an audio suffix."""
        track = _track(table, row)
        path = local_file(track)
        if not path:
            raise ProblemError(404, "out_of_reach", f"{track.path}: can't be read by this machine")
        return FileResponse(path)

    @router.get("/songs/{row}/cover", response_class=Response, responses=COVER_RESPONSES)
    def cover(row: Row, revision: Revision = "") -> Response:
        """The image in the tags of a song's file; 204 where such a file or image is missing."""
        check_revision(table, revision)
        path, image = local_file(_track(table, row)), None
        with contextlib.suppress(TagError, MissingExtraError):
            image = read_cover(str(path)) if path else None
        data, media_type = image or (b"", None)
        return Response(data, 200 if data else 204, COVER_HEADERS, media_type)

    @router.put("/songs/{row}/correction")
    def correct(row: Row, correction: Correction, path: str | None = None) -> LibraryTrack:
        """Save a genre; the table itself stays as it is. With `path`, 409 when the row is another song's by now."""
        return _correct(table, row, correction.path, correction.genre)

    @router.delete("/songs/{row}/correction")
    def delete_correction(row: Row, path: str | None = None) -> LibraryTrack:
        """Delete a correction; with `path`, 409 when the row is another song's by now."""
        return _correct(table, row, path, None)


def local_file(track: LibraryTrack) -> pathlib.Path | None:
    """A song's file, if it is a local one with an audio suffix."""
    path = pathlib.Path(unescape_path(track.path))
    is_audio = not is_remote(track.path) and path.suffix.lower() in AUDIO_SUFFIXES
    return path if is_audio and path.is_file() else None


def find_tracks(table: LibraryTable, rows: list[int] | None) -> list[LibraryTrack]:
    """The songs of `rows`, or all. Raises ProblemError for a row that the table doesn't have."""
    if rows and max(rows) >= len(table):
        raise ProblemError(404, "no_such_song", f"the library has {plural(len(table), 'song')}")
    return table.tracks(rows)


def _track(table: LibraryTable, row: int) -> LibraryTrack:
    return find_tracks(table, [row])[0]


def _correct(table: LibraryTable, row: int, path: str | None, genre: str | None) -> LibraryTrack:
    track = _track(table, row)
    if path not in (None, track.path):
        raise ProblemError(409, "another_song", f"the table has changed: row {row} is {track.path}; reload the page")
    _save(table, [track], genre)
    return replace(track, correction=genre)


def _save(table: LibraryTable, tracks: list[LibraryTrack], genre: str | None) -> None:
    if genre is not None and (genre.lower() == UNKNOWN or not genre.isprintable()):
        raise ProblemError(422, "invalid_genre", f"{genre!r} can't be the name of a genre; choose another")
    try:
        table.corrections.write([(track.path, track.genre) for track in tracks], genre)
    except OSError as error:
        detail = f"{table.corrections.path}: can't be written ({error.strerror}); is the disk full or read-only?"
        raise ProblemError(507, "not_saved", detail) from None
