"""What went wrong, in the form of RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5  # after a 503, unless it says otherwise
# Of a worker's Failure; all others are the file's fault, 422.
STATUS = {"no worker": 503, "cancelled": 410}


class Problem(BaseModel):
    """RFC 9457: what is wrong (`title`), with what, and what to do about it (`detail`)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:musicclass:unreadable",
                "title": "unreadable",
                "status": 422,
                "detail": "song.mp3: not audio, or damaged; see if it plays, or convert it to wav or flac",
                "file": "song.mp3",
            }
        },
    )

    type: str = Field(description="urn:musicclass: and the title; for programs")
    title: str
    status: int
    detail: str = Field(description="names the file, the cause and the remedy; for people")
    file: str | None = None


class ProblemError(Exception):
    """Raised by routes, and answered with the problem."""

    def __init__(self, problem: dict[str, Any], headers: dict[str, str] | None = None):
        super().__init__(problem["detail"])
        self.problem, self.headers = problem, headers


def problem(status: int, title: str, detail: str, **more: Any) -> dict[str, Any]:
    """A problem's members; the title may be empty for a plain HTTP error."""
    title = title or HTTPStatus(status).phrase.lower()
    kind = f"urn:musicclass:{title.replace(' ', '-')}"
    return {"type": kind, "title": title, "status": status, "detail": detail, **more}


def respond(problem: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    """The problem as a response."""
    if problem["status"] == 503:
        headers = {"Retry-After": str(RETRY_SECONDS), **(headers or {})}
    return JSONResponse(problem, problem["status"], headers, media_type=MEDIA_TYPE)
