"""The OpenAPI document with what FastAPI doesn't derive, and the page that shows it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from musicclass import prediction
from musicclass.server import (
    inference,
    jobs,
    library_table,
    problem_details,
    routes_library,
    routes_similar,
    routes_tags,
)
from musicclass.server.settings import ServerSettings

TEMPLATE = Path(__file__).with_name("api.html.j2")
MODULES = (
    prediction,
    problem_details,
    library_table,
    inference,
    jobs,
    routes_library,
    routes_similar,
    routes_tags,
)  # with schemas
COMMENT = re.compile(r"^    (\w+): [^#]*(?:# type: \S+ +)?# (.*)$", re.MULTILINE)
STATUSES = {
    400: "a form or a request that can't be parsed",
    401: "a missing or wrong token",
    403: "a page of another site",
    404: "no such path, job or song; or the song's file can't be reached",
    405: "another method than those of the route",
    408: "the sender stalls, or is too slow",
    409: "the row holds another song by now, or tags are being written",
    410: "a cancelled job",
    413: "too large, declared or received, or more files than the queue takes",
    415: "neither audio, bytes nor a form",
    416: "a range beyond the end of the file",
    421: "a host name that isn't this machine's, without a token",
    422: "no file could be used: unreadable, silent, invalid, too_short, timeout, out_of_memory, crashed; "
    "or an invalid or unknown parameter",
    503: "too many files are waiting, or the server stops: retry after Retry-After seconds",
    507: "the library's table can't be read, or its corrections or its journal of tags not written",
}
EXAMPLES = {  # media type of a body -> options of curl
    "application/octet-stream": "--data-binary @song.mp3 -H 'Content-Type: audio/mpeg'",
    "application/json": "-H 'Content-Type: application/json' -d '{}'",
}


def complete(document: dict[str, Any], token_required: bool) -> None:
    """Add the token, and the comments of dataclasses as descriptions of their fields."""
    components = document["components"]
    schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
    components["securitySchemes"] = schemes
    document["security"] = [{name: []} for name in schemes] if token_required else []
    comments = _comments_of(MODULES)
    for name, schema in components["schemas"].items():
        for field, value in schema.get("properties", {}).items():
            if comment := comments.get(name, {}).get(field):
                value.setdefault("description", comment)


def _comments_of(modules: Iterable[ModuleType]) -> dict[str, dict[str, str]]:
    """Dataclass -> field -> comment, also of inherited fields; nothing where the source isn't installed."""
    comments: dict[str, dict[str, str]] = {}
    for module in modules:
        for name, kind in vars(module).items():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                with contextlib.suppress(OSError):
                    sources = [inspect.getsource(base) for base in kind.__mro__[::-1] if dataclasses.is_dataclass(base)]
                    comments[name] = {match[1]: match[2] for text in sources for match in COMMENT.finditer(text)}
    return comments


def render_api(document: dict[str, Any], settings: ServerSettings) -> str:
    """The HTML of the page, for page.render_page."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _code
    operations = [
        {"method": method.upper(), "path": path, **operation, "example": _example(method, path, operation, settings)}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    values = {"document": document, "operations": operations, "statuses": STATUSES, "token": settings.token}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return str(template.render(values, json=json.dumps))


def _code(text: str) -> Markup:
    """HTML of a text in which code is in backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text or ""))))


def _example(method: str, path: str, operation: dict[str, Any], settings: ServerSettings) -> str:
    """A command line that sends such a request."""
    query = [
        f"{each['name']}=…" for each in operation.get("parameters", []) if each["in"] == "query" and each["required"]
    ]
    url = f"http://{settings.host}:{settings.port}{settings.root_path}{path}" + ("?" + "&".join(query) if query else "")
    options = [] if method == "get" else [f"-X {method.upper()}"]
    options += ['-H "Authorization: Bearer $TOKEN"'] if settings.token else []
    content = operation.get("requestBody", {}).get("content", {})
    options += [option for media_type, option in EXAMPLES.items() if media_type in content][:1]
    return " ".join(["curl", *options, f"'{url}'"]).replace("curl -X POST --data", "curl --data")
