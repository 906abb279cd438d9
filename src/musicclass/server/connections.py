"""Connections: fewer than there are file descriptors, and none that sends no request."""

from __future__ import annotations

import asyncio
import contextlib

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from musicclass.server.problem_details import make_problem, respond
from musicclass.server.security import HEADERS

BACKLOG = 32  # connections that asyncio accepts at once
RESERVED = 32 + BACKLOG  # file descriptors for workers, the model and files
DEFAULT_FILES = 512  # where the system doesn't say


def max_connections() -> int:
    """How many connections this process can hold."""
    limit = DEFAULT_FILES
    with contextlib.suppress(ImportError):  # Windows
        import resource

        limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 100_000)
    return max(8, limit - RESERVED)


def make_protocol(head_timeout: float) -> type[asyncio.Protocol]:
    """The protocol of uvicorn; closes connections above `max_connections`, or without a request in `head_timeout` s."""
    limit = max_connections()

    class LimitedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limit:
                transport.abort()
            self.loop.call_later(head_timeout, self._close_if_idle)

        def send_400_response(self, msg: str) -> None:
            detail = "not an HTTP request that can be parsed; check its first line and headers"
            response = respond(make_problem(400, "bad_request", detail), {**HEADERS, "Connection": "close"})
            head = h11.Response(status_code=400, headers=response.raw_headers, reason=b"Bad Request")
            events = (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
            self.transport.close()

        def _close_if_idle(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.abort()

    return LimitedProtocol
