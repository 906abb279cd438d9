"""A server for tests: the real app, with real workers, on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from schemathesis.checks import CHECKS, load_all_checks

from musicclass.cli import main
from musicclass.web.app import make_app
from musicclass.web.serve import config
from musicclass.web.settings import Settings


@contextlib.contextmanager
def running(ready: bool = True, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a server with these settings, when it is `ready`; its `base_url` tells where it is."""
    app = make_app(Settings(**{"workers": 2, **settings}))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config(app, 1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    headers = {"Authorization": f"Bearer {settings['token']}"} if "token" in settings else {}
    try:
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            wait_for(lambda: is_ready(client) if ready else is_there(client))
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/v1/health").status_code == 200
    return False


def is_there(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/v1/health").status_code > 0
    return False


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Until it holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def tried_by_schemathesis(client: httpx.Client) -> int:
    """Ask all routes of the OpenAPI description for much that is odd; fails at an answer that isn't described."""
    url = str(client.base_url)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    load_all_checks()
    checks = CHECKS.get_by_names(
        ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    tried = 0
    for operation in schema.get_all_operations():

        @trying(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=operation.ok().as_strategy())
        def check(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(base_url=url, checks=checks)

        check()
    return tried


def main_of(*arguments: str) -> int:
    """The exit status of the command line with these arguments."""
    before, sys.argv = sys.argv, ["musicclass", *arguments]
    try:
        return main()
    finally:
        sys.argv = before
