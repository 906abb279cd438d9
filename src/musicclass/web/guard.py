"""What every request has to pass before the app sees it: host, origin, token, size and pace; and security headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musicclass.web.problems import problem, respond
from musicclass.web.settings import Settings

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
}
DRAINED = 2_000_000  # bytes of a refused request that are read, so that its sender gets to see why


class _Refused(Exception):
    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.status, self.headers = status, headers


class Guard:
    """ASGI middleware. It answers what it refuses as a problem (RFC 9457)."""

    def __init__(self, app: ASGIApp, settings: Settings):
        self.app, self.settings = app, settings
        self._held = 0  # bytes of requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, started, ended, read = Headers(scope=scope), False, False, 0

        async def guarded() -> Message:
            nonlocal read, ended
            try:
                message = await asyncio.wait_for(receive(), None if ended else self.settings.slow)
            except TimeoutError:
                raise _Refused(408, f"nothing came for {self.settings.slow:g} s; send it again") from None
            read += len(message.get("body", b""))
            self._held += len(message.get("body", b""))
            ended = ended or not message.get("more_body", False)
            self._check_size(read)
            if self._held > self.settings.max_waiting_bytes:
                raise _Refused(503, "too much is being sent at once; try again soon")
            return message

        async def protected(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._protect(MutableHeaders(scope=message))
            await send(message)

        try:
            self._check(scope, headers)
            await self.app(scope, guarded, protected)
        except _Refused as refused:
            if not started:
                await self._drain(receive, ended)
                response = respond(problem(refused.status, "", str(refused)), refused.headers)
                await response(scope, receive, protected)
        finally:
            self._held -= read

    def _check(self, scope: Scope, headers: Headers) -> None:
        """What can be known before the body has come."""
        self._check_host(headers)
        if not self._may_ask(headers, scope["method"]):
            raise _Refused(403, "pages of other sites may not ask; start the server with --cors to let one")
        if self.settings.token and not self._brings_token(headers):
            how = {"WWW-Authenticate": 'Basic realm="musicclass: any name, the token as password", charset="UTF-8"'}
            raise _Refused(401, "this server wants its token: Authorization: Bearer TOKEN", how)
        declared = headers.get("content-length", "0")
        self._check_size(int(declared) if declared.isdigit() else 0)

    def _check_host(self, headers: Headers) -> None:
        """Without a token, only names of this machine: another site's name may be made to point here."""
        name = _host(f"//{headers.get('host', '')}")
        if not self.settings.token and not is_local(name):
            raise _Refused(421, f"this server doesn't answer for {name}; ask it by 127.0.0.1 or localhost")

    def _may_ask(self, headers: Headers, method: str) -> bool:
        """Whether the page that asks, if it is one, is ours or one of `origins`."""
        origin = headers.get("origin")
        if origin in self.settings.origins or method in ("GET", "HEAD"):
            return True
        return origin is None or origin.partition("://")[2] == headers.get("host")

    def _brings_token(self, headers: Headers) -> bool:
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":  # what browsers ask for by themselves
            try:
                value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(value.strip().encode(), (self.settings.token or "").encode())

    def _check_size(self, size: int) -> None:
        if size > self.settings.max_body:
            most = f"{self.settings.max_body / 1e6:g} MB"
            raise _Refused(413, f"larger than {most}, the most that this server takes at once; send less")

    async def _drain(self, receive: Receive, ended: bool) -> None:
        size = 0
        try:
            async with asyncio.timeout(2):
                while not ended and size < DRAINED:
                    message = await receive()
                    size += len(message.get("body", b""))
                    ended = not message.get("more_body", False)
        except TimeoutError:
            pass

    def _protect(self, answer: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            answer.setdefault(name, value)
        answer.setdefault("Cache-Control", "no-cache")
        if self.settings.origins:
            answer["Cross-Origin-Resource-Policy"] = "cross-origin"


def _host(address: str) -> str:
    """The host that an address names; none in a malformed one."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def is_local(host: str) -> bool:
    """Whether a host's name or address is this very machine's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
