"""A server for tests: the real app, with real workers, on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn

from musicclass.web.app import make_app
from musicclass.web.settings import Settings


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[httpx.Client]:
    """A client of a server with these settings; its `base_url` tells where it is."""
    app = make_app(Settings(**{"workers": 2, **settings}))
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {settings['token']}"} if "token" in settings else {}
    try:
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            wait_for(lambda: is_ready(client))
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/v1/health").status_code == 200
    return False


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Until it holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)
