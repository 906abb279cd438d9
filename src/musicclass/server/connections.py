"""Connections: fewer than there are file descriptors, and none that sends no request."""

from __future__ import annotations

import asyncio
import contextlib

from uvicorn.protocols.http.h11_impl import H11Protocol

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

        def _close_if_idle(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.abort()

    return LimitedProtocol
