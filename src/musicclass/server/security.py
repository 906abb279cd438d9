"""Middleware: host, origin, token and size of requests, and the security headers of responses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicclass.server.problem_details import ProblemError, make_problem, respond
from musicclass.server.settings import ServerSettings

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self' blob:; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",
}
AUTHENTICATE = {"WWW-Authenticate": 'Basic realm="musicclass: any name, the token as password", charset="UTF-8"'}
MIN_RATE = 1000  # bytes a second of a body that takes longer than the timeout
DRAIN_BYTES, DRAIN_SECONDS = 2_000_000, 2.0  # read of a rejected request, so that its sender gets the response


class SecurityMiddleware:
    """Rejects requests with a problem (RFC 9457).

    Starlette's own body limit and host check respond in plain text, and don't count the bytes of all requests.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings):
        self.app, self.settings = app, settings
        self.held = 0  # bytes of requests that have no response yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        app, body, responded = self.app, _Body(self, receive), False

        async def protected_send(message: Message) -> None:
            nonlocal responded
            responded = True
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and not body.complete:
                    await _drain(receive)
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["method"], Headers(scope=scope))
        except ProblemError as error:
            app = respond(error.problem, error.headers)
        try:
            await app(self._with_root_path(scope), body.receive, protected_send)
        except asyncio.CancelledError:  # the server stops
            body.complete = True
            if not responded:
                response = respond(make_problem(503, "stopping", "the server stops; try again soon"))
                await response(scope, receive, protected_send)
        finally:
            self.held -= body.size

    def _with_root_path(self, scope: Scope) -> Scope:
        """The scope with the path before a proxy stripped the root path, if it did."""
        root = self.settings.root_path
        if not root:
            return scope
        path = scope["path"] if scope["path"].startswith(f"{root}/") else root + scope["path"]
        return {**scope, "path": path, "root_path": root}

    def _check(self, method: str, headers: Headers) -> None:
        """All that is known before the body. Raises ProblemError."""
        origin, token = headers.get("origin"), self.settings.token
        host = re.sub(r":\d*$", "", headers.get("host", ""))  # without the port
        if not token and not is_local(host):  # DNS rebinding: another site's name may resolve to this machine
            detail = f"this server doesn't respond to the name {host}; use 127.0.0.1 or localhost"
            raise ProblemError(421, "misdirected_request", detail)
        same_origin = origin is None or origin.partition("://")[2] == headers.get("host")
        if not (same_origin or method in ("GET", "HEAD") or origin in self.settings.origins):
            detail = "pages of other sites may not send requests; start the server with --allow-origin to allow one"
            raise ProblemError(403, "forbidden", detail)
        if token and not hmac.compare_digest(_credentials(headers).encode(), token.encode()):
            detail = "this server requires its token: Authorization: Bearer TOKEN"
            raise ProblemError(401, "unauthorized", detail, AUTHENTICATE)
        declared = headers.get("content-length", "")
        self.check_size(int(declared) if declared.isdigit() else 0)

    def check_size(self, size: int) -> None:
        if size > self.settings.max_upload:
            detail = f"larger than {self.settings.max_upload / 1e6:g} MB, the limit of this server; send less at once"
            raise ProblemError(413, "too_large", detail)


class _Body:
    """The body of a request, while it comes in."""

    def __init__(self, middleware: SecurityMiddleware, receive: Receive):
        self._middleware, self._receive, self._begin = middleware, receive, time.monotonic()
        self.size, self.complete = 0, False

    async def receive(self) -> Message:
        """The next message. Raises ProblemError for a body that is too slow or too large."""
        settings = self._middleware.settings
        try:
            message = await asyncio.wait_for(self._receive(), None if self.complete else settings.receive_timeout)
        except TimeoutError:
            detail = f"nothing came for {settings.receive_timeout:g} s; send it again"
            raise ProblemError(408, "request_timeout", detail) from None
        size = len(message.get("body", b""))
        self.size += size
        self._middleware.held += size
        self.complete = self.complete or not message.get("more_body", False)
        seconds = time.monotonic() - self._begin
        if not self.complete and seconds > settings.receive_timeout and self.size < MIN_RATE * seconds:
            raise ProblemError(408, "request_timeout", f"slower than {MIN_RATE} bytes a second; send it again")
        self._middleware.check_size(self.size)
        if self._middleware.held > settings.max_held_bytes:
            raise ProblemError(503, "busy", "too much is being sent at once; try again soon")
        return message


async def _drain(receive: Receive) -> None:
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_BYTES and (message := await receive()).get("more_body"):
                size += len(message["body"])


def _credentials(headers: Headers) -> str:
    """The token of Authorization: Bearer, or the password of Basic, which browsers ask for; else empty."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
    return value.strip() if scheme.lower() == "bearer" else ""


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
