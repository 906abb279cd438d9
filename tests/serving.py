"""The real server with real workers, on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import uvicorn

from musicclass.cli.app import main
from musicclass.server.app import make_app, uvicorn_config
from musicclass.server.settings import ServerSettings


@contextlib.contextmanager
def running(ready: bool = True, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a server with these settings, once it responds or, with `ready`, its first worker is ready."""
    chosen = ServerSettings(**{"workers": 1, "shutdown_timeout": 1, **settings})
    app = make_app(chosen)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app, chosen))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    headers = {"Authorization": f"Bearer {settings['token'].strip()}"} if "token" in settings else {}
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            wait_for(lambda: client.get("/v1/health").status_code in ([200] if ready else [200, 503]))
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `condition` holds; connections that fail count as "not yet". Fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def main_of(*arguments: str) -> int:
    """The exit status of the command line with these arguments."""
    before, sys.argv = sys.argv, ["musicclass", *arguments]
    try:
        return main()
    finally:
        sys.argv = before
