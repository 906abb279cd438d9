"""The app: web UI, model and server state; and how it is served. Other routes are in routes_*.py."""

from __future__ import annotations

import functools
import logging
import mimetypes
import os
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from typing import Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware

import musicclass
from musicclass import tagger
from musicclass.errors import ConfigError
from musicclass.explain import group_edges
from musicclass.page import LAYOUT
from musicclass.palette import genre_color
from musicclass.saved_model import HISTORY, SavedModel, load_model
from musicclass.server import (
    api_page,
    problem_details,
    routes_library,
    routes_predict,
    routes_similar,
    routes_tags,
    security,
)
from musicclass.server.connections import BACKLOG, make_protocol
from musicclass.server.jobs import Jobs
from musicclass.server.library_table import LibraryTable
from musicclass.server.problem_details import ProblemError
from musicclass.server.security import SecurityMiddleware, is_local
from musicclass.server.settings import ServerSettings
from musicclass.server.web_pages import STATIC, make_pages

MEDIA_TYPES = {
    ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}  # fmt: skip
ABOUT = """Upload audio, get its genre: of the whole track and of each segment, with a calibrated confidence, and
"unknown" for what is unlike the training data. Uploads are never stored."""


@dataclass(frozen=True)
class Health:
    """The state of the server."""

    status: Literal["ok", "starting"]
    model: str
    version: str
    workers: int  # that have loaded the model
    queued: int  # files that wait for a worker


def make_app(settings: ServerSettings) -> FastAPI:
    """The web UI and the API as an ASGI app. Raises ModelError and LibraryError."""
    model, jobs = load_model(settings.model), Jobs(settings)
    app = FastAPI(
        title="musicclass",
        version=musicclass.__version__,
        summary="Music genre classification, per track and over time.",
        description=ABOUT,
        docs_url=None,  # these pages load scripts from other sites
        redoc_url=None,
        lifespan=jobs.lifespan,
        responses=problem_details.RESPONSES,
        exception_handlers=problem_details.HANDLERS,
        dependencies=[Depends(problem_details.refuse_unknown_parameters)],
    )
    app.add_middleware(SecurityMiddleware, settings=settings)
    if settings.origins:
        exposed = ["Location", "Retry-After"]
        app.add_middleware(
            CORSMiddleware, settings.origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed
        )
    app.include_router(routes_predict.make_router(jobs, model))
    if settings.library:
        table = LibraryTable(settings.library)
        app.include_router(routes_library.make_router(table, settings.write_tags))
        if settings.write_tags:
            app.include_router(routes_tags.make_router(table, settings))
        app.include_router(routes_similar.make_router(table, jobs))
    _add_model(app, model, settings)
    _add_state(app, jobs, model)
    document = app.openapi()
    api_page.complete(document, settings.token is not None)
    app.openapi = lambda: document  # type: ignore[method-assign]
    _add_web_ui(app, model, settings)
    return app


def _add_model(app: FastAPI, model: SavedModel, settings: ServerSettings) -> None:
    @app.get("/v1/model", tags=["model"])
    def card() -> dict[str, Any]:
        """The model's card: what it is, what it was trained on, its metrics; and what the web UI needs."""
        history = [{name: float(value) for name, value in row.items() if value} for row in model.read_table(HISTORY)]
        return {name: value for name, value in model.card.items() if name != "versions"} | {
            "history": history,
            "colors": {genre: genre_color(genre, model.genres) for genre in model.genres},
            "band_edges": group_edges(model.features),
            "tags": tagger.TAGS if model.uses_tagger and tagger.available() else [],
            "min_confidence": settings.min_confidence,
            "limits": {"bytes": settings.max_upload, "seconds": settings.max_seconds},
        }

    @app.get("/v1/model/{name}", tags=["model"], response_class=FileResponse)
    def graph(name: Literal["model.onnx", "frontend.onnx", "pooling.onnx", "tagger.onnx"]) -> FileResponse:
        """An ONNX graph of the model; those of the tagger only if the card lists tags."""
        path = tagger.TAGGER if name == "tagger.onnx" else model.path / name
        if not (path.exists() and (model.uses_tagger or name != "tagger.onnx")):
            raise ProblemError(404, "not_found", f"{model.name} has no {name}")
        return FileResponse(path, media_type="application/octet-stream")


def _add_state(app: FastAPI, jobs: Jobs, model: SavedModel) -> None:
    @app.get("/v1/health", tags=["server"], responses={503: {"model": Health, "description": "It is starting"}})
    async def health(response: Response) -> Health:
        """503 until the first worker has loaded the model."""
        response.status_code = 200 if jobs.ready else 503
        return Health("ok" if jobs.ready else "starting", model.name, musicclass.__version__, jobs.ready, jobs.queued)

    @app.get("/v1/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(jobs.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_web_ui(app: FastAPI, model: SavedModel, settings: ServerSettings) -> None:
    """The pages; scripts and styles at /static."""
    for suffix, media_type in MEDIA_TYPES.items():  # some systems' tables are wrong; browsers then run no script
        mimetypes.add_type(media_type, suffix)
    for path, page in make_pages(model, settings, app.openapi()).items():
        app.add_route(path, functools.partial(_respond, page))
    app.mount("/static", StaticFiles(directory=STATIC, packages=[("musicclass", LAYOUT.name)]))


def _respond(page: str, request: Request) -> HTMLResponse:
    return HTMLResponse(page)


def serve(settings: ServerSettings, open_browser: bool) -> None:
    """Serve until Ctrl-C. Raises ConfigError for an address that can't be used, or that requires a token."""
    if not is_local(settings.host) and not settings.token:
        raise ConfigError(f"--host {settings.host} lets other machines send requests: set a --token as well")
    app = make_app(settings)
    with _listen(settings) as listener:
        _log_to_stderr(settings.access_log)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{listener.getsockname()[1]}/"
        print(f"musicclass runs at {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        if open_browser and _has_display():
            threading.Timer(1, webbrowser.open, [url]).start()
        uvicorn.Server(uvicorn_config(app, settings)).run(sockets=[listener])


def _log_to_stderr(access_log: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logger = logging.getLogger("musicclass")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    security.access_log.disabled = not access_log


def uvicorn_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=make_protocol(settings.receive_timeout),
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )


def _listen(settings: ServerSettings) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it lets two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(f"can't listen at {settings.host}:{settings.port} ({reason}); try another --port") from None
    return listener


def _has_display() -> bool:
    """Whether a browser window can open; without a display, Python starts a browser in the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
