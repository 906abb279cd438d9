"""A client of the HTTP API that `musicclass serve` offers. It needs no extra.

client = Client("http://127.0.0.1:8000", token="…")
prediction = client.predict("song.mp3")
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from musicclass.errors import MusicClassError
from musicclass.features import Array
from musicclass.prediction import Prediction, Segment
from musicclass.server.library_table import LibraryTrack, SimilarTrack

PAGE_SIZE = 500  # songs of a library in one response
MAX_WAIT = 60.0  # seconds before a retry
Song = str | os.PathLike[str] | bytes  # a file's path or its content


class ServerError(MusicClassError):
    """The server can't be reached (`status` 0), or responded with a problem (RFC 9457); its message is `detail`."""

    def __init__(self, status: int, title: str, detail: str):
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


@dataclass(frozen=True)
class SongExplanation:
    """What `musicclass.explain.Explanation` has, without the log-mel frames."""

    prediction: Prediction
    genre: str
    summary: str
    top_spans: list[tuple[float, float]]  # start and end in seconds
    top_band: tuple[float, float]  # Hz
    examined: list[tuple[float, float]]  # start and end in seconds of the windows; elsewhere, weights are 0
    times: list[float]  # edges of the cells in seconds, (n + 1,)
    frequencies: list[float]  # edges in Hz, (m + 1,)
    weights: Array  # (n, m)


class Client:
    """All methods raise ServerError, and OSError for a song that can't be read."""

    def __init__(self, url: str = "http://127.0.0.1:8000", token: str = "", timeout: float = 120.0, retries: int = 3):
        """`timeout` is in seconds for each request; a busy server (503) gets `retries` more. Raises ValueError."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r}: the address of a server begins with http:// or https://")
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def predict(self, song: Song, embedding: bool = False) -> Prediction:
        """Predict the genre of a song; with `embedding`, the result has that as well."""
        return _prediction(self._upload("/v1/predict", song, {"embedding": "true"} if embedding else {}))

    def explain(self, song: Song, genre: str | None = None) -> SongExplanation:
        """Predict the genre of a song, and find the times and frequencies that it, or `genre`, depends on."""
        body = self._upload("/v1/predict", song, {"explain": "true"} | ({"genre": genre} if genre else {}))
        fields = body["explanation"]
        del fields["log_mel"]
        for name in ("top_spans", "examined"):
            fields[name] = [(start, end) for start, end in fields[name]]
        fields |= {"top_band": tuple(fields["top_band"]), "weights": np.array(fields["weights"], np.float32)}
        return SongExplanation(_prediction(body), **fields)

    def similar(self, song: Song | Array | LibraryTrack, top: int = 20) -> list[SimilarTrack]:
        """The songs of the server's library that sound most like a song, an embedding (200,), or a library's song."""
        query = {"top": top}
        if isinstance(song, LibraryTrack):
            body = self._request("GET", "/v1/library/similar", query | {"path": song.path})
        elif isinstance(song, np.ndarray):
            content = json.dumps({"embedding": song.tolist()}).encode()
            body = self._request("POST", "/v1/similar", query, content, "application/json")
        else:
            body = self._upload("/v1/similar", song, query)
        return [SimilarTrack(**row) for row in body["songs"]]

    def library(self, text: str = "", genre: str = "", order: str = "path") -> Iterator[LibraryTrack]:
        """The songs of the server's library whose paths contain the words of `text`; of one genre, if given."""
        query: dict[str, Any] = {"text": text, "genre": genre, "order": order, "limit": PAGE_SIZE, "offset": 0}
        while rows := self._request("GET", "/v1/library/songs", query)["songs"]:
            yield from (LibraryTrack(**row) for row in rows)
            query["offset"] += len(rows)

    def _upload(self, path: str, song: Song, query: dict[str, Any]) -> Any:
        if isinstance(song, bytes):
            return self._request("POST", path, query, song)
        return self._request("POST", path, query | {"name": Path(song).name}, Path(song).read_bytes())

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        content: bytes | None = None,
        media_type: str = "application/octet-stream",
    ) -> Any:
        """The JSON of a response; retries while the server is busy."""
        url, headers = f"{self.url}{path}?{urlencode(query)}", {**self._headers, "Content-Type": media_type}
        request = urllib.request.Request(url, content, headers, method=method)
        for attempt in range(self.retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 503 and attempt < self.retries:
                        time.sleep(_retry_after(error))
                        continue
                    raise _server_error(error) from None
            except OSError as error:
                reason = getattr(error, "reason", error)
                detail = f"{self.url} can't be reached ({reason}); is the server running?"
                raise ServerError(0, "unreachable", detail) from None


def _retry_after(error: urllib.error.HTTPError) -> float:
    text = error.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT) if text.isdigit() else 1.0


def _server_error(error: urllib.error.HTTPError) -> ServerError:
    try:
        problem = json.load(error)
        return ServerError(error.code, problem["title"], problem["detail"])
    except (ValueError, KeyError, TypeError):  # of a proxy
        return ServerError(error.code, "no_problem", f"the server responded with status {error.code} ({error.reason})")


def _prediction(body: dict[str, Any]) -> Prediction:
    """The fields of Prediction in a response."""
    fields = {name: value for name, value in body.items() if name in Prediction.__dataclass_fields__}
    segments = tuple(Segment(**segment) for segment in body["segments"])
    embedding = np.array(body["embedding"], np.float32) if "embedding" in body else None
    return Prediction(**fields | {"segments": segments, "embedding": embedding})
