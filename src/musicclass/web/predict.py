"""Asking for genres: files in, answers or jobs out."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from musicclass.bundle import Bundle
from musicclass.library.workers import Failure
from musicclass.web import describe, problems
from musicclass.web.hearing import Ask
from musicclass.web.jobs import Job, Jobs
from musicclass.web.problems import ProblemError, problem

BEAT_SECONDS = 15.0  # between two signs of life of a stream of events
SENT_AS = ("audio/", "video/", "application/octet-stream", "application/ogg", "binary/octet-stream")

Peaks = Annotated[int, Query(ge=0, le=5000, description="So many peaks of the waveform, evenly spread.")]
Explain = Annotated[bool, Query(description="What the answer rests on, too: seconds and frequencies.")]
Genre = Annotated[str | None, Query(description="Explain this genre in place of the best guess.")]
Name = Annotated[str, Query(max_length=1000, description="What to call a file that is sent as the body.")]
Wait = Annotated[bool, Query(description="false: answer at once with 202 and jobs to ask for.")]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


class _InMemory(MultiPartParser):
    """Forms never touch the disk; the guard bounds what is held of them."""

    spool_max_size = sys.maxsize


def add_routes(app: FastAPI, jobs: Jobs, bundle: Bundle) -> None:
    """POST /v1/predict, and its jobs."""
    _add_jobs(app, jobs)

    @app.post("/v1/predict", tags=["predict"], **describe.PREDICT)
    async def predict(
        request: Request,
        wait: Wait = True,
        peaks: Peaks = 0,
        explain: Explain = False,
        genre: Genre = None,
        name: Name = "audio",
    ) -> Response:
        """Tell the genre of a file that is the body, or of the files of a form."""
        if genre is not None and genre not in bundle.genres:
            detail = f"{bundle.name} doesn't know {genre!r}; it knows {', '.join(bundle.genres)}"
            raise ProblemError(problem(422, "unknown genre", detail))
        jobs.check_room()  # before the body is read
        form, files = await _files(request, name)
        taken = jobs.put([Ask(data, called, peaks, explain, genre, followed=not wait) for called, data in files])
        if not wait:
            told = [_job(job) for job in taken]
            return JSONResponse({"jobs": told}, 202, {"Location": told[0]["href"]})
        await _until_done(request, jobs, taken)
        return _answers(taken) if form else _answer(taken[0])


def _add_jobs(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/v1/jobs/{id}", tags=["predict"], **describe.JOB)
    async def job(request: Request, id: JobId) -> Response:
        """How far a job is, and its answer; with Accept: text/event-stream, as events until it is done."""
        found = _found(jobs, id)
        if "text/event-stream" in request.headers.get("accept", ""):
            unbuffered = {"X-Accel-Buffering": "no"}  # for proxies
            return StreamingResponse(_events(found), headers=unbuffered, media_type="text/event-stream")
        return JSONResponse(_job(found))

    @app.delete("/v1/jobs/{id}", tags=["predict"], status_code=204, **describe.DROP)
    async def drop(id: JobId) -> Response:
        """Forget a job; one that still waits will not be heard."""
        jobs.drop(_found(jobs, id))
        return Response(status_code=204)


async def _files(request: Request, name: str) -> tuple[bool, list[tuple[str, bytes]]]:
    """Whether the request is a form, and its files: names and bytes."""
    kind = request.headers.get("content-type", "application/octet-stream").lower()
    if kind.startswith("multipart/form-data"):
        try:
            form = await _InMemory(request.headers, request.stream()).parse()
        except MultiPartException as error:
            raise ProblemError(problem(400, "", f"the form can't be read: {error.message}")) from None
        parts = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        files = [(_called(part.filename or "audio"), await part.read()) for part in parts]
        if not files:
            raise ProblemError(problem(422, "no file", "the form holds no file; send one, in a field of any name"))
        return True, files
    if not kind.startswith(SENT_AS):
        detail = f"can't hear {kind.partition(';')[0]}; send audio/*, application/octet-stream or multipart/form-data"
        raise ProblemError(problem(415, "", detail))
    return False, [(_called(name), b"".join([part async for part in request.stream()]))]


def _called(name: str) -> str:
    """A file's name as the sender gives it, fit for one line of a message; it is never a path here."""
    return "".join(c if c.isprintable() else "?" for c in name)[:255] or "audio"


async def _until_done(request: Request, jobs: Jobs, taken: list[Job]) -> None:
    """Wait for jobs; when the client hangs up, drop them."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    done: asyncio.Future[Any] = asyncio.gather(*(job.done() for job in taken))
    left: asyncio.Future[Any] = asyncio.create_task(gone())
    try:
        await asyncio.wait((done, left), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientDisconnect
    finally:
        left.cancel()
        done.cancel()
        for job in taken:
            jobs.drop(job)


def _failed(job: Job) -> dict[str, Any] | None:
    """The problem of a job that ended in one."""
    if not isinstance(job.value, Failure):
        return None
    status = problems.STATUS.get(job.value.status, 422)
    return problem(status, job.value.status, job.value.error, file=job.name)


def _answer(job: Job) -> Response:
    wrong = _failed(job)
    return problems.respond(wrong) if wrong else JSONResponse(job.value)


def _answers(taken: list[Job]) -> Response:
    """Of several files: answers and problems, in order; where no file could be used, the first one's problem."""
    told = [_failed(job) or job.value for job in taken]
    wrong = [_failed(job) for job in taken]
    if wrong[0] and all(wrong):
        return problems.respond({**wrong[0], "files": told})
    return JSONResponse({"files": told})


def _found(jobs: Jobs, id: str) -> Job:
    job = jobs.get(id)
    if job is None:
        raise ProblemError(problem(404, "no such job", "there is no such job, or it was done long ago; send it again"))
    return job


def _job(job: Job) -> dict[str, Any]:
    told: dict[str, Any] = {"id": job.id, "href": f"/v1/jobs/{job.id}", "file": job.name, "state": job.state}
    told["share"] = round(job.share, 3)
    if job.state == "done":
        wrong = _failed(job)
        told |= {"problem": wrong} if wrong else {"answer": job.value}
    return told


async def _events(job: Job) -> AsyncIterator[str]:
    async for now in job.follow(BEAT_SECONDS):
        yield f"event: {now.state}\ndata: {json.dumps(_job(now))}\n\n"
