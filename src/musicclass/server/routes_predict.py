"""Routes that predict: files in, predictions or jobs out."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import TypeAdapter
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from musicclass.saved_model import SavedModel
from musicclass.server.inference import PredictRequest, PredictResponse
from musicclass.server.jobs import Job, Jobs, JobStatus
from musicclass.server.problem_details import Problem, ProblemError

ACCEPTED_TYPES = (
    "audio/", "video/", "application/octet-stream", "application/ogg", "binary/octet-stream",
    "application/x-www-form-urlencoded",  # what curl --data-binary declares
)  # fmt: skip
POLL_SECONDS = 0.2  # between two events of a job, and two checks for clients that disconnect
FILE = {"schema": {"type": "string", "format": "binary"}}
FORM = {"schema": {"type": "object", "required": ["files"], "properties": {
    "files": {"type": "array", "minItems": 1, "items": FILE["schema"]}}}}  # fmt: skip
FILES = {"application/octet-stream": FILE, "audio/*": FILE, "multipart/form-data": FORM}

WaveformPeaks = Annotated[int, Query(ge=0, le=5000, description="This many peaks of the waveform, evenly spread")]
Explain = Annotated[bool, Query(description="The seconds and frequencies that the prediction rests on")]
Genre = Annotated[str | None, Query(description="Explain this genre instead of the top genre")]
Embedding = Annotated[bool, Query(description="The embedding of the track, 200 values; without the tagger, none")]
Name = Annotated[str, Query(max_length=1000, description="The name of a file that is sent as the body")]
Wait = Annotated[bool, Query(description="false: respond at once with 202 and jobs")]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]

EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*([\w.:-]+)'[^']*'([^;\s]*)", re.IGNORECASE)
MultiPartParser.spool_max_size = sys.maxsize  # forms are kept in memory, never on disk


@dataclass(frozen=True)
class PredictBatchResponse:
    """The files of a form, in order."""

    files: list[PredictResponse | Problem]


@dataclass(frozen=True)
class JobList:
    """The jobs of a form's files, in order, or of the one file that was the body."""

    jobs: list[JobStatus]


JOB_STATUS = TypeAdapter(JobStatus)


def make_router(jobs: Jobs, model: SavedModel) -> APIRouter:
    """POST /v1/predict and /v1/jobs."""
    router = APIRouter(tags=["predict"])

    @router.post(
        "/v1/predict", response_model_exclude_defaults=True,
        openapi_extra={"requestBody": {"required": True, "content": FILES}},
        responses={202: {"model": JobList, "description": "With wait=false"}},
    )  # fmt: skip
    async def predict(
        request: Request,
        response: Response,
        wait: Wait = True,
        waveform_peaks: WaveformPeaks = 0,
        explain: Explain = False,
        genre: Genre = None,
        embedding: Embedding = False,
        name: Name = "audio",
    ) -> PredictResponse | PredictBatchResponse | JobList:
        """Predict the genre of a file that is the body, or of the files of a form."""
        if genre is not None and genre not in model.genres:
            detail = f"{model.name} has no genre {genre!r}; it has {', '.join(model.genres)}"
            raise ProblemError(422, "unknown_genre", detail)
        jobs.check_capacity()  # before the body is read
        is_form, files = await read_files(request, name)
        requests = [PredictRequest(data, file, waveform_peaks, explain, genre, embedding) for file, data in files]
        submitted = jobs.submit(requests)
        if not wait:
            response.status_code, response.headers["Location"] = 202, submitted[0].status.href
            return JobList([job.status for job in submitted])
        await wait_for(request, jobs, submitted)
        results = [job.done.result() for job in submitted]
        problems = [result for result in results if isinstance(result, Problem)]
        if is_form and len(problems) < len(results):
            return PredictBatchResponse(results)
        if isinstance(first := results[0], Problem):
            files_of_form = problems if is_form else None
            raise ProblemError(first.status, first.title, first.detail, file=first.file, files=files_of_form)
        return first

    @router.get("/v1/jobs/{id}", response_model_exclude_defaults=True, responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}})  # fmt: skip
    async def status(request: Request, id: JobId) -> JobStatus:
        """A job; with Accept: text/event-stream, an event named by its state, five times a second until it is done."""
        current = jobs.get(id)
        if "text/event-stream" in request.headers.get("accept", ""):
            unbuffered = {"X-Accel-Buffering": "no"}  # for reverse proxies
            return EventSourceResponse(_events(current), headers=unbuffered)  # type: ignore[return-value]
        return current.status

    @router.delete("/v1/jobs/{id}", status_code=204)
    async def cancel(id: JobId) -> None:
        """Forget a job; one that is queued is never run."""
        jobs.cancel(jobs.get(id))

    return router


class _FormParser(MultiPartParser):
    """Starlette's, for `filename*=` (RFC 5987) as well, which RFC 7578 forbids in forms, but some clients send."""

    def on_headers_finished(self) -> None:
        header = self._current_part.content_disposition or b""
        if match := EXTENDED_NAME.search(header):
            with contextlib.suppress(LookupError):  # of an unknown encoding
                name = unquote_to_bytes(match[2]).decode(match[1].decode(), "replace").replace('"', "'")
                self._current_part.content_disposition = header + f'; filename="{name}"'.encode()
        super().on_headers_finished()


async def read_files(request: Request, name: str) -> tuple[bool, list[tuple[str, bytes]]]:
    """Whether the request is a form, and the names and bytes of its files."""
    media_type = request.headers.get("content-type", "application/octet-stream").lower()
    if media_type.startswith("multipart/form-data"):
        try:
            form = await _FormParser(request.headers, request.stream()).parse()
        except MultiPartException as error:
            raise ProblemError(400, "bad_request", f"not a form that can be parsed: {error.message}") from None
        parts = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not parts:
            raise ProblemError(422, "no_file", "the form has no file; send one, in a field of any name")
        return True, [(_printable(part.filename or "audio"), await part.read()) for part in parts]
    if not media_type.startswith(ACCEPTED_TYPES):
        accepted = "audio/*, application/octet-stream or multipart/form-data"
        detail = f"can't read {media_type.partition(';')[0]}; send {accepted}"
        raise ProblemError(415, "unsupported_media_type", detail)
    return False, [(_printable(name), await request.body())]


def _printable(name: str) -> str:
    """A file's name, as the sender gives it, for one line of a message."""
    return "".join(c if c.isprintable() else "?" for c in name)[:255] or "audio"


async def wait_for(request: Request, jobs: Jobs, submitted: list[Job]) -> None:
    """Wait until jobs are done. Cancels them, and raises ClientDisconnect, when the client disconnects."""
    try:
        while (await asyncio.wait([job.done for job in submitted], timeout=POLL_SECONDS))[1]:  # some are pending
            if await request.is_disconnected():
                raise ClientDisconnect
    finally:
        for job in submitted:
            jobs.cancel(job)


async def _events(job: Job) -> AsyncIterator[bytes]:
    done = False
    while not done:
        done, data = job.done.done(), JOB_STATUS.dump_json(job.status, exclude_defaults=True)
        yield format_sse_event(event=job.status.state, data_str=data.decode())
        await asyncio.wait([job.done], timeout=POLL_SECONDS)
