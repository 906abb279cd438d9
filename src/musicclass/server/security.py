"""Middleware: host, origin, token and size of requests, headers of responses, and the access log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicclass.server.problem_details import ProblemError, make_problem, respond
from musicclass.server.settings import ServerSettings

log, access_log = logging.getLogger("musicclass.server"), logging.getLogger("musicclass.server.access")
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
DRAIN_SECONDS = 5.0  # in which a rejected request is read, so that its sender gets the response
PROBES = ("/v1/health", "/v1/metrics")  # need no token from this machine
ERRORS = {416: ("range_not_satisfiable", "the file has no such range")}


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
        scope = self._with_root_path(scope)
        body = _Body(self, receive)
        response, begin = _Response(scope, body, send), time.monotonic()
        app: ASGIApp = self.app
        try:
            self._check(scope)
        except ProblemError as error:
            app = respond(error.problem, error.headers)
        try:
            # uvicorn sends no body for HEAD.
            inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await app(inner, body.receive, response.send)
        except asyncio.CancelledError:  # the server stops
            body.complete = True
            if not response.status:
                problem = respond(make_problem(503, "stopping", "the server stops; try again soon"))
                await problem(scope, receive, response.send)
        finally:
            self.held -= body.size
            _log_access(inner, response.status or 500, body.size, time.monotonic() - begin)

    def _with_root_path(self, scope: Scope) -> Scope:
        """The scope with the path before a proxy stripped the root path, if it did."""
        root = self.settings.root_path
        if not root:
            return scope
        path = scope["path"] if scope["path"].startswith(f"{root}/") else root + scope["path"]
        return {**scope, "path": path, "root_path": root}

    def _check(self, scope: Scope) -> None:
        """All that is known before the body. Raises ProblemError."""
        headers = Headers(scope=scope)
        origin, token = headers.get("origin"), self.settings.token
        host = re.sub(r":\d*$", "", headers.get("host", ""))  # without the port
        if not token and not is_local(host):  # DNS rebinding: another site's name may resolve to this machine
            detail = f"this server doesn't respond to the name {host}; use 127.0.0.1 or localhost"
            raise ProblemError(421, "misdirected_request", detail)
        same_origin = origin is None or origin.partition("://")[2] == headers.get("host")
        if not (same_origin or scope["method"] in ("GET", "HEAD") or origin in self.settings.origins):
            detail = "pages of other sites may not send requests; start the server with --allow-origin to allow one"
            raise ProblemError(403, "forbidden", detail)
        if token and not hmac.compare_digest(_credentials(headers).encode(), token.encode()):
            self._check_probe(scope, headers, host)
        declared = headers.get("content-length", "")
        self.check_size(int(declared) if declared.isdigit() else 0)

    def _check_probe(self, scope: Scope, headers: Headers, host: str) -> None:
        """Raises ProblemError for a request that needs the token."""
        is_probe = scope["path"].removeprefix(self.settings.root_path) in PROBES
        if is_probe and _is_of_this_machine(scope, host):
            return
        if "authorization" in headers:
            log.info("a wrong token from %s", _client(scope))
        raise ProblemError(
            401, "unauthorized", "this server requires its token: Authorization: Bearer TOKEN", AUTHENTICATE
        )

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

    async def drain(self) -> None:
        """Read the rest of a request whose sender may still be sending, within limits."""
        size, settings = 0, self._middleware.settings
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while size <= settings.max_upload and (message := await self._receive()).get("more_body"):
                    size += len(message["body"])


class _Response:
    """The response of a request, while it is sent."""

    def __init__(self, scope: Scope, body: _Body, send: Send):
        self._scope, self._body, self._send = scope, body, send
        self._is_early = self._is_replaced = False
        self.status = 0  # until it begins

    async def send(self, message: Message) -> None:
        """Send a message with the security headers; errors in plain text, which Starlette sends, become problems.

        After an early error, the rest of the request is read, so that senders that read no response before get it.
        """
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if message["status"] >= 400 and headers.get("content-type", "").startswith("text/plain"):
                await self._replace(message["status"], headers.get("content-range"))
                return
            self.status = message["status"]
            self._is_early = self.status >= 400 and not self._body.complete
            for name, value in {**HEADERS, **({"Connection": "close"} if self._is_early else {})}.items():
                headers.setdefault(name, value)
        elif self._is_early and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._body.drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _replace(self, status: int, content_range: str | None) -> None:
        title, detail = ERRORS.get(status, ("bad_request", "can't be processed; check its headers"))
        problem = make_problem(status, title, f"{self._scope['path']}: {detail}")
        response = respond(problem, {"Content-Range": content_range} if content_range else None)
        await response(self._scope, self._body.receive, self.send)
        self._is_replaced = True


def _log_access(scope: Scope, status: int, size: int, seconds: float) -> None:
    """Log a request by its route, as paths and queries have names of files; not the polls of jobs."""
    fallback = "/static" if "/static/" in scope["path"] else "(no route)"
    route = getattr(scope.get("route"), "path", fallback)
    if not (route == "/v1/jobs/{id}" and status == 200):
        access_log.info("%s %s %s %d, %d bytes, %.3f s", _client(scope), scope["method"], route, status, size, seconds)


def _client(scope: Scope) -> str:
    return str((scope.get("client") or ["-"])[0])


def _is_of_this_machine(scope: Scope, host: str) -> bool:
    """Whether a request comes from this machine, and from no proxy on it."""
    forwarded = any(name == b"forwarded" or name.startswith(b"x-forwarded-") for name, _ in scope["headers"])
    return is_local(host) and is_local(_client(scope)) and not forwarded


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
