"""Errors in the form of RFC 9457, "problem details"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from musicclass.errors import LibraryError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5  # after a 503 that doesn't say it itself
RESPONSES: dict[int | str, dict[str, Any]] = {  # of every route
    "default": {
        "description": "An error",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


@dataclass(frozen=True)
class Problem:
    """`type` and `title` are for programs; `detail` names the cause and the remedy."""

    type: str  # "urn:musicclass:" and the title
    title: str  # such as "too_short"
    status: int
    detail: str
    file: str | None = None
    files: list[Problem] | None = None  # of a form in which no file can be used


class ProblemError(HTTPException):
    """Raised by routes and by the middleware; `more` are further fields of its `problem`."""

    def __init__(self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any):
        super().__init__(status, detail, headers)
        self.problem = make_problem(status, title, detail, **more)


def make_problem(status: int, title: str, detail: str, **more: Any) -> Problem:
    """A problem with its type."""
    return Problem(f"urn:musicclass:{title}", title, status, detail, **more)


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response."""
    retry = {"Retry-After": str(RETRY_SECONDS)} if problem.status == 503 else {}
    content = TypeAdapter(Problem).dump_python(problem, exclude_none=True)
    return JSONResponse(content, problem.status, {**retry, **(headers or {})}, MEDIA_TYPE)


async def handle(request: Request, error: Exception) -> Response:
    """Respond to any error with a problem."""
    match error:
        case ProblemError():
            return respond(error.problem, error.headers)
        case HTTPException(status_code=status, detail=detail, headers=headers):
            title = HTTPStatus(status).phrase.lower().replace(" ", "_")
            return respond(make_problem(status, title, f"{request.url.path}: {detail}"), headers)
        case RequestValidationError():
            causes = (f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors())
            return respond(make_problem(422, "invalid_request", "; ".join(causes)))
        case LibraryError():
            return respond(make_problem(507, "unreadable", str(error)))
        case ClientDisconnect():
            return Response(status_code=499)  # nobody receives it
    return respond(make_problem(500, "internal_server_error", "see the log of the server"))


def _query_parameters(dependant: Dependant) -> list[str]:
    """The names of a route's query parameters, and of those of its dependencies."""
    own = [field.alias for field in dependant.query_params]
    return own + [name for each in dependant.dependencies for name in _query_parameters(each)]


async def refuse_unknown_parameters(request: Request) -> None:
    """A dependency of all routes. Raises ProblemError that names query parameters that the route doesn't have."""
    names = _query_parameters(request.scope["route"].dependant)
    if unknown := [name for name in dict.fromkeys(request.query_params) if name not in names]:
        known = f"it has {', '.join(names)}" if names else "it has none"
        detail = f"{request.url.path} has no parameter {', '.join(map(repr, unknown))}; {known}"
        raise ProblemError(422, "unknown_parameter", detail)


HANDLERS: dict[int | type[Exception], Any] = dict.fromkeys(
    (HTTPException, RequestValidationError, LibraryError, ClientDisconnect, Exception), handle
)
