"""Routes that find the songs of a library's table that sound most like a song."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, ValidationError

from musicclass.library.similar import NO_EMBEDDINGS, Song
from musicclass.server.inference import PredictRequest
from musicclass.server.jobs import Jobs
from musicclass.server.library_table import LibraryTable, SimilarTrack
from musicclass.server.problem_details import Problem, ProblemError
from musicclass.server.routes_predict import FILES, Name, read_files, wait_for

Top = Annotated[int, Query(ge=1, le=500, description="Number of songs")]
SongPath = Annotated[str, Query(description="The path of a song, as the table has it")]


class EmbeddingBody(BaseModel):
    """An embedding, as /v1/predict sends it."""

    embedding: list[Annotated[float, Field(ge=-1e6, le=1e6)]]


@dataclass(frozen=True)
class SimilarSongs:
    """Songs, most similar first; no recording twice."""

    songs: list[SimilarTrack]


BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": EmbeddingBody.model_json_schema()}, **FILES},
}


def make_router(table: LibraryTable, jobs: Jobs) -> APIRouter:
    """GET /v1/library/similar and POST /v1/similar."""
    router = APIRouter(tags=["library"], dependencies=[Depends(table.refresh)])

    @router.get("/v1/library/similar")
    def similar_to_song(path: SongPath, top: Top = 20) -> SimilarSongs:
        """The songs that sound most like a song of the library, without its own recording."""
        _check_embedded(table)
        songs = table.index.nearest_to_file(path, top)
        if songs is None:
            raise ProblemError(404, "no_such_song", f"{path}: not in the library, or without an embedding")
        return SimilarSongs(table.similar(songs))

    @router.post("/v1/similar", openapi_extra={"requestBody": BODY})
    async def similar_to_upload(request: Request, top: Top = 20, name: Name = "audio") -> SimilarSongs:
        """The songs that sound most like a file, which is the body or the first of a form, or like an embedding."""
        _check_embedded(table)
        if request.headers.get("content-type", "").lower().startswith("application/json"):
            embedding = await _read_embedding(request, table.index.size)
        else:
            embedding = await _embed(request, jobs, name)
        songs: list[Song] = table.index.nearest(np.array(embedding, np.float32), top)
        return SimilarSongs(table.similar(songs))

    return router


def _check_embedded(table: LibraryTable) -> None:
    if not len(table.index):
        raise ProblemError(404, "no_embeddings", f"{table.path.name}: {NO_EMBEDDINGS}")


async def _read_embedding(request: Request, size: int) -> list[float]:
    try:
        embedding = EmbeddingBody.model_validate_json(await request.body()).embedding
    except ValidationError as error:
        cause = error.errors()[0]
        raise ProblemError(422, "invalid_request", f"{'.'.join(map(str, cause['loc']))}: {cause['msg']}") from None
    if len(embedding) != size:
        raise ProblemError(422, "invalid_request", f"embedding: {len(embedding)} values; the library's have {size}")
    return embedding


async def _embed(request: Request, jobs: Jobs, name: str) -> list[float]:
    jobs.check_capacity()
    _, ((file, data), *_) = await read_files(request, name)
    (job,) = jobs.submit([PredictRequest(data, file, embedding=True)])
    await wait_for(request, jobs, [job])
    result = job.done.result()
    if isinstance(result, Problem):
        raise ProblemError(result.status, result.title, result.detail, file=result.file)
    if result.embedding is None:
        raise ProblemError(422, "no_embeddings", f"{file}: the model has no embeddings; serve another with --model")
    return result.embedding
