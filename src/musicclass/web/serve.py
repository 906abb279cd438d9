"""Runs the app: a socket, uvicorn, and the page in a browser."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import webbrowser

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from musicclass.errors import ConfigError
from musicclass.web.app import make_app
from musicclass.web.guard import is_local
from musicclass.web.settings import Settings

HEAD_SECONDS = 20.0  # for the head of a request
GOODBYE_SECONDS = 3  # that open connections get at the end


def serve(settings: Settings, browser: bool) -> None:
    """Serve until Ctrl-C. Raises ConfigError for an address that can't be had, or that needs a token."""
    if not is_local(settings.host) and not settings.token:
        raise ConfigError(f"--host {settings.host}: others could ask, too; give a --token, and tell it them")
    app = make_app(settings)
    with _bound(settings) as listening:
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{name}:{listening.getsockname()[1]}/"
        print(f"musicclass is at {url}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if browser and _has_display():
            threading.Timer(1, webbrowser.open, [url]).start()
        uvicorn.Server(config(app, GOODBYE_SECONDS)).run(sockets=[listening])


class Impatient(H11Protocol):
    """Ends connections on which no whole request comes: uvicorn itself waits for ever for a first one's head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look(self)

    def _look(self, before: object) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and before is self.cycle:
            self.transport.close()
        else:
            self.loop.call_later(HEAD_SECONDS, self._look, self.cycle if idle else self)


def config(app: FastAPI, goodbye: int) -> uvicorn.Config:
    """How uvicorn runs the app; at the end, open connections get `goodbye` seconds."""
    return uvicorn.Config(
        app,
        http=Impatient,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=goodbye,
    )


def _bound(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let two servers have one port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        why = error.strerror or str(error)
        raise ConfigError(f"can't listen at {settings.host}:{settings.port} ({why}); try another --port") from None
    return listening


def _has_display() -> bool:
    """Whether a browser window can open; without one, Python would start a browser for terminals."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
