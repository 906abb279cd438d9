"""The server's routes; FastAPI makes the OpenAPI description of them."""

from __future__ import annotations

import functools
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

import musicclass
from musicclass.bundle import Bundle, load_bundle
from musicclass.plots import colour
from musicclass.web import browse, describe, predict, problems
from musicclass.web.collection import Collection
from musicclass.web.guard import Guard
from musicclass.web.jobs import Jobs, QueueFull
from musicclass.web.metrics import Metrics
from musicclass.web.problems import ProblemError, problem
from musicclass.web.settings import Settings

STATIC = Path(__file__).with_name("static")
KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}
PRIVATE = ("predictions", "history", "versions")  # long, and not what the page needs of a card


def make_app(settings: Settings) -> FastAPI:
    """The page and the API as an ASGI app. Raises BundleError and LibraryError for what can't be served."""
    bundle = load_bundle(settings.model)
    jobs, metrics = Jobs(settings), Metrics()
    jobs.heard = metrics.heard

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with jobs:
            yield

    app = FastAPI(
        title="musicclass",
        version=musicclass.__version__,
        summary="Tells the genre of music.",
        description=describe.ABOUT,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, settings=settings)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After"],
        )
    _add_problems(app)

    predict.add_routes(app, jobs, bundle)
    if settings.library:
        browse.add_routes(app, Collection(settings.library))
    _add_model(app, bundle, settings)
    _add_server(app, jobs, metrics, bundle)
    _add_pages(app)
    return app


def _add_pages(app: FastAPI) -> None:
    """Pages by their names, such as /model; what they are made of is below /static."""
    for ending, kind in KINDS.items():  # some systems' own tables are wrong, and then browsers run no script
        mimetypes.add_type(kind, ending)
    for path in STATIC.glob("*.html"):
        name = "" if path.stem == "index" else path.stem
        app.add_route(f"/{name}", functools.partial(_page, path))
    app.mount("/static", StaticFiles(directory=STATIC))


def _page(path: Path, request: Request) -> Response:
    return FileResponse(path)


def _add_model(app: FastAPI, bundle: Bundle, settings: Settings) -> None:
    @app.get("/v1/model", tags=["model"], **describe.MODEL)
    async def model() -> Response:
        """The model's card: what it is, what it was trained on, and how well it does."""
        card = {name: value for name, value in bundle.card.items() if name not in PRIVATE}
        card["data"] = {name: value for name, value in bundle.card["data"].items() if name != "split"}
        card["colours"] = {genre: colour(genre, bundle.genres) for genre in bundle.genres}
        card["confidence"] = bundle.card.get("confidence", {}) | bundle.confidence.to_dict()
        card["min_confidence"] = settings.min_confidence
        card["library"] = settings.library is not None
        card["limits"] = {"bytes": settings.max_body, "seconds": settings.max_seconds}
        return JSONResponse(card)

    @app.get("/v1/model/network", tags=["model"], **describe.NETWORK)
    async def network() -> Response:
        """The network itself, as ONNX."""
        return FileResponse(bundle.path / "model.onnx", media_type="application/octet-stream")


def _add_server(app: FastAPI, jobs: Jobs, metrics: Metrics, bundle: Bundle) -> None:
    @app.get("/v1/health", tags=["server"], **describe.HEALTH)
    async def health() -> Response:
        """Whether the server hears: 503 until its first worker has loaded the model."""
        told: dict[str, Any] = {
            "status": "ok" if jobs.ready else "starting",
            "model": bundle.name,
            "version": musicclass.__version__,
        }
        told |= {"workers": jobs.ready, "waiting": jobs.waiting}
        return JSONResponse(told, 200 if jobs.ready else 503)

    @app.get("/v1/metrics", tags=["server"], **describe.METRICS)
    async def measured() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.page(jobs), media_type=metrics.MEDIA_TYPE)


def _add_problems(app: FastAPI) -> None:
    """Have every error answered in one form."""

    @app.exception_handler(ProblemError)
    async def known(request: Request, error: ProblemError) -> Response:
        return problems.respond(error.problem, error.headers)

    @app.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> Response:
        return problems.respond(problem(503, "busy", str(error)), {"Retry-After": str(error.seconds)})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return problems.respond(problem(422, "invalid request", wrong))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return problems.respond(problem(error.status_code, "", f"{request.url.path}: {error.detail}"), headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return problems.respond(problem(500, "", "the server has failed; what happened stands in its output"))

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody gets it
