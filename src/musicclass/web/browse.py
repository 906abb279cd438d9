"""A library's table by the API: overview, map, songs, their sound, and corrections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field

from musicclass.errors import LibraryError
from musicclass.prediction import UNKNOWN
from musicclass.web import describe
from musicclass.web.collection import Collection, Song, short
from musicclass.web.problems import ProblemError, problem, respond

MAX_PAGE = 500

Row = Annotated[int, Path(ge=0, lt=2**31)]
Order = Annotated[Literal["unsure", "sure", "path", "genre"], Query(description="least sure first, ...")]
Text = Annotated[str, Query(max_length=200, description="words that have to be in the path")]
Genre = Annotated[str, Query(max_length=100)]
Corrected = Annotated[bool | None, Query(description="only those that are corrected, or only those that aren't")]
Offset = Annotated[int, Query(ge=0, lt=2**31)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


class Correction(BaseModel):
    """A genre by hand; also to confirm the one that was told."""

    model_config = {"json_schema_extra": {"example": {"genre": "jazz"}}}

    genre: str = Field(min_length=1, max_length=100, pattern=r"^\S(.*\S)?$", description="of the model, or any other")
    path: str | None = Field(None, description="the song's; 409 when the row is another song's by now")


def add_routes(app: FastAPI, collection: Collection) -> None:
    """/v1/library and what is below it."""

    @app.exception_handler(LibraryError)
    async def unreadable(request: Request, error: LibraryError) -> Response:
        return respond(problem(507, "unreadable", str(error)))

    _add_songs(app, collection)

    @app.get("/v1/library", tags=["library"], **describe.LIBRARY)
    def overview() -> Response:
        """How many songs, of which genres, and what couldn't be heard."""
        told: dict[str, Any] = {"name": collection.path.name, "songs": len(collection.songs)}
        told |= {"failed": dict(collection.failed), "genres": collection.counts(), "model_genres": collection.genres}
        return JSONResponse(told | {"corrected": len(collection.corrections)})

    @app.get("/v1/library/map", tags=["library"], **describe.LIBRARY)
    def placed() -> Response:
        """Songs on a plane, near where their probabilities are alike; of many, an even choice of 20,000."""
        return JSONResponse(collection.map())

    @app.get("/v1/library/corrections", tags=["library"], **describe.CORRECTIONS)
    def corrections() -> Response:
        """Genres by hand as CSV: labels that `musicclass train` reads."""
        collection.corrections.refresh()
        named = {"Content-Disposition": 'attachment; filename="corrections.csv"'}
        return Response(collection.corrections.text(), headers=named, media_type="text/csv")


def _add_songs(app: FastAPI, collection: Collection) -> None:
    @app.get("/v1/library/songs", tags=["library"], **describe.LIBRARY)
    def songs(
        order: Order = "unsure",
        text: Text = "",
        genre: Genre = "",
        corrected: Corrected = None,
        offset: Offset = 0,
        limit: Limit = 50,
    ) -> Response:
        """Songs in an order, some at once; `total` counts all that were looked for."""
        some = collection.find(text, genre, corrected, order)
        told = [_told(collection, song) for song in some[offset : offset + limit]]
        return JSONResponse({"total": len(some), "songs": told})

    @app.get("/v1/library/songs/{row}", tags=["library"], **describe.SONG)
    def song(row: Row) -> Response:
        """One song."""
        return JSONResponse(_told(collection, _song(collection, row)))

    @app.get("/v1/library/songs/{row}/audio", tags=["library"], **describe.SOUND)
    def sound(row: Row) -> Response:
        """A song's file, where this machine can reach it; in parts, when asked for a range."""
        song = _song(collection, row)
        path = collection.audio(row)
        if path is None:
            raise ProblemError(problem(404, "out of reach", f"{song.path}: can't be reached from here"))
        return FileResponse(path)

    @app.put("/v1/library/songs/{row}/correction", tags=["library"], **describe.SONG)
    def correct(row: Row, correction: Correction) -> Response:
        """Keep a genre by hand; the table itself stays as it is."""
        genre = correction.genre
        if genre.lower() == UNKNOWN or not genre.isprintable():
            raise ProblemError(problem(422, "no genre", f"{genre!r} is no genre to learn from; name one"))
        return _change(collection, row, correction.path, genre)

    @app.delete("/v1/library/songs/{row}/correction", tags=["library"], **describe.SONG)
    def forget(row: Row, path: str | None = None) -> Response:
        """Forget a genre by hand; with `path`, 409 when the row is another song's by now."""
        return _change(collection, row, path, None)


def _song(collection: Collection, row: int) -> Song:
    if row >= len(collection.songs):
        raise ProblemError(problem(404, "no such song", f"the library has {len(collection.songs)} songs"))
    return collection.songs[row]


def _told(collection: Collection, song: Song) -> dict[str, Any]:
    return {**vars(song), "name": short(song.path), "correction": collection.corrections.of(song.path)}


def _change(collection: Collection, row: int, path: str | None, genre: str | None) -> Response:
    song = _song(collection, row)
    if path not in (None, song.path):
        raise ProblemError(
            problem(409, "another song", f"the table has changed, row {row} is {song.path}; load it anew")
        )
    try:
        collection.corrections.put(song.path, genre, song.genre)
    except OSError as error:
        why = f"{collection.corrections.path}: can't be written ({error.strerror}); is the disk full or read-only?"
        raise ProblemError(problem(507, "not kept", why)) from None
    return JSONResponse(_told(collection, song))
