"""The HTTP API: predictions as everywhere, limits, errors that name the cause, and no trace of uploads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import html
import io
import json
import logging
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any
from unittest.mock import AsyncMock

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicclass import audio, tagger
from musicclass.client import Client, ServerError
from musicclass.prediction import Prediction, Segment
from musicclass.server import connections, inference, jobs, routes_predict, web_pages
from musicclass.server.app import make_app
from musicclass.server.inference import PredictRequest
from musicclass.server.problem_details import ProblemError
from musicclass.server.security import HEADERS, SecurityMiddleware
from musicclass.server.settings import ServerSettings
from tests import faulty_tasks
from tests.conftest import RATE, ROOT, make_music
from tests.faulty_tasks import BLOCK
from tests.serving import main_of, running, wait_for

PATHS = ("/", "/v1/health", "/v1/model", "/v1/metrics", "/openapi.json", "/nothing")
NOT_AUDIO = b"x" * 99
MAX_UPLOAD = 1_500_000


def encode(samples: np.ndarray, kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def song() -> bytes:
    return encode(make_music())


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with running() as client:
        yield client


@pytest.fixture(scope="module")
def limited() -> Iterator[httpx.Client]:
    """A server with tight limits whose worker fails for files with certain names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "make_request_task", faulty_tasks.make_request_task)
        limits = {"max_upload": MAX_UPLOAD, "max_held_bytes": 0, "max_seconds": 5.0, "worker_memory": 6e8}
        with running(queue_size=2, timeout=8.0, receive_timeout=0.3, **limits) as client:
            yield client


@pytest.fixture(scope="module")
def protected() -> Iterator[httpx.Client]:
    """A server with a token, for another site's pages as well."""
    with running(token="geheim", host="0.0.0.0", origins=("https://friend.org",)) as client:
        yield client


def post(client: httpx.Client, data: bytes, **query: object) -> httpx.Response:
    return client.post("/v1/predict", content=data, params=query, headers={"Content-Type": "audio/wav"})


def submit(client: httpx.Client, data: bytes, name: str = "audio") -> str:
    """The address of a new job."""
    return str(post(client, data, name=name, wait=False).json()["jobs"][0]["href"])


def submit_held(client: httpx.Client, data: bytes) -> str:
    """The address of a running job that is done when BLOCK is deleted."""
    BLOCK.touch()
    href = submit(client, data, "hold")
    wait_for_state(client, href, "running")
    return href


def wait_for_state(client: httpx.Client, href: str, state: str) -> None:
    wait_for(lambda: client.get(href).json()["state"] == state)


def check_problem(response: httpx.Response, status: int, title: str, detail: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["title"], problem["type"]) == (status, title, f"urn:musicclass:{title}")
    assert re.search(detail, problem["detail"]), problem["detail"]
    return problem


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_prediction_is_that_of_the_command_line(server, song, tmp_path, capsys):
    path = tmp_path / "song.wav"
    path.write_bytes(song)
    assert main_of("predict", str(path), "--json") == 0
    expected = json.loads(capsys.readouterr().out) | {"file": "song.wav"}
    response = post(server, song, name="song.wav").json()
    form = server.post("/v1/predict", files={"f": ("song.wav", song)}).json()["files"][0]
    extended = post(server, song, name="song.wav", waveform_peaks=100, explain=True).json()
    assert response == form == expected
    assert {name: extended[name] for name in response} == response
    assert server.post("/v1/predict", content=encode(make_music(6), "MP3")).json()["duration"] == pytest.approx(6, 0.02)


def test_waveform_peaks_and_explanation(server, song, classifier):
    response = post(server, song, waveform_peaks=120, explain=True, genre="jazz").json()
    expected = np.abs(soundfile.read(io.BytesIO(song))[0]).reshape(120, -1).max(axis=1)
    np.testing.assert_allclose(response["waveform_peaks"], expected, atol=0.05)
    image = response["explanation"].pop("log_mel")
    assert response["explanation"] == json.loads(json.dumps(classifier.explain(io.BytesIO(song), "jazz").to_dict()))
    assert len(base64.b64decode(image["data"])) == image["width"] * image["height"]
    assert len(post(server, encode(make_music(1.0)), waveform_peaks=5000).json()["waveform_peaks"]) == 50


def test_explanations_need_no_second_decoding(server, classifier, song):
    track = classifier.track_features(audio.stream(io.BytesIO(song), RATE))
    sent: list[PredictRequest] = []

    class Pool:
        def map(self, items: list[PredictRequest]) -> Iterator[Any]:
            sent.extend(items)
            yield items[0], inference.predict(classifier, items[0], lambda _: None)

    digest = hashlib.sha256(song).digest()
    for request in (PredictRequest(song, "a"), PredictRequest(song, "a", explain=True)):
        done = jobs._run_in(Pool(), request, {digest: track})  # type: ignore[arg-type]
        assert done.digest == digest and np.array_equal(done.features.log_mel, track.log_mel)
    assert sent[0].data == song and not sent[1].data and sent[1].features is track
    post(server, song)
    assert post(server, song, explain=True).json()["explanation"] == json.loads(json.dumps(done.response.explanation))


def test_each_file_of_a_form_gets_a_prediction_or_a_problem(server, song):
    files = [("f", ("a.wav", song)), ("f", ("b.mp3", NOT_AUDIO)), ("g", ("c.wav", encode(np.zeros(RATE * 3))))]
    response = server.post("/v1/predict", files=files)
    assert response.status_code == 200
    first, second, third = response.json()["files"]
    assert first["file"] == "a.wav" and first["probabilities"]
    assert second["title"] == "unreadable" and second["file"] == "b.mp3" and "b.mp3: not audio" in second["detail"]
    assert third["title"] == "silent" and third["detail"].startswith("c.wav: ")
    failed = check_problem(server.post("/v1/predict", files=files[1:]), 422, "unreadable", "b.mp3: not audio")
    assert [problem["title"] for problem in failed["files"]] == ["unreadable", "silent"]
    check_problem(server.post("/v1/predict", files={"f": (None, "text")}), 422, "no_file", "has no file")


@pytest.mark.parametrize(("method", "path", "headers", "status", "title", "detail"), [
    ("POST", "", {"Content-Type": "application/json"}, 415, "unsupported_media_type", "can't read application/json"),
    ("POST", "?name=x.mp3", {}, 422, "unreadable", "x.mp3: not audio"),
    ("POST", "?waveform_peaks=-1", {}, 422, "invalid_request", "waveform_peaks: Input should be"),
    ("POST", "?genre=polka", {}, 422, "unknown_genre", "no genre 'polka'; it has blues"),
    ("POST", "", {"Content-Type": "multipart/form-data"}, 400, "bad_request", "boundary"),
    ("POST", "", {"Origin": "https://elsewhere.org"}, 403, "forbidden", "other sites.*--allow-origin"),
    ("POST", "", {"Origin": "http://["}, 403, "forbidden", "--allow-origin"),
    ("POST", "", {"Host": "elsewhere.org"}, 421, "misdirected_request", "elsewhere.org"),
    ("GET", "", {"Host": "["}, 421, "misdirected_request", "127.0.0.1"),
    ("GET", "", {"Host": "any@localhost"}, 421, "misdirected_request", "127.0.0.1"),
    ("GET", "/../nothing", {"Host": "[::1]:80"}, 404, "not_found", ""),
    ("GET", "", {}, 405, "method_not_allowed", "/v1/predict"),
    ("GET", "/../nothing", {}, 404, "not_found", "/v1/nothing"),
    ("GET", "/../../static/../../etc/passwd", {}, 404, "not_found", ""),
    ("GET", f"/../jobs/{'0' * 32}", {}, 404, "no_such_job", "send the file again"),
    ("GET", "/../jobs/x", {}, 422, "invalid_request", "id"),
    ("POST", "/../../", {}, 405, "method_not_allowed", "/"),
    ("POST", "/../../static/style.css", {}, 405, "method_not_allowed", "style.css"),
    ("GET", "/../../static/none.css", {}, 404, "not_found", "none.css"),
    ("POST", "?explian=true&genre=jazz", {}, 422, "unknown_parameter", "no parameter 'explian'; it has .*explain"),
    ("GET", "/../health?x=1&y=2", {}, 422, "unknown_parameter", "no parameter 'x', 'y'; it has none"),
    ("GET", "/../model/model.onnx", {"Range": "bytes=999999999-"}, 416, "range_not_satisfiable", "range"),
    ("GET", "/../model/model.onnx", {"Range": "bytes=x"}, 400, "bad_request", "headers"),
])  # fmt: skip
def test_errors_name_the_cause(server, method, path, headers, status, title, detail):
    headers = {"Content-Type": "audio/mpeg", **headers}
    response = server.request(method, f"/v1/predict{path}", content=NOT_AUDIO, headers=headers)
    check_problem(response, status, title, detail)


@pytest.mark.parametrize("path", ["/", "/v1/health", "/v1/model", "/v1/model/model.onnx", "/openapi.json", "/v1/none"])
def test_head_has_the_headers_of_get(server, path):
    head, get = server.head(path), server.get(path)
    assert head.status_code == get.status_code and not head.content
    for name in ("content-length", "content-type"):
        assert head.headers[name] == get.headers[name]
    assert server.head("/v1/predict").status_code == 405


def test_malformed_requests_are_problems(server):
    head, _, body = first_bytes(server, b"no request\r\n\r\n").partition(b"\r\n\r\n")
    assert b" 400 " in head and b"application/problem+json" in head and b"nosniff" in head
    assert json.loads(body)["title"] == "bad_request"


def test_senders_that_read_nothing_before_they_have_sent_get_early_errors(limited, protected):
    for server, data, status in ((limited, bytes(2 * MAX_UPLOAD), 413), (protected, bytes(50_000_000), 401)):
        with pytest.raises(ServerError) as caught:
            Client(str(server.base_url), "wrong").predict(data)
        assert caught.value.status == status


def test_logs_have_neither_tokens_nor_names(protected, song, caplog):
    caplog.set_level(logging.INFO, "musicclass")
    url = str(protected.base_url)
    post(protected, NOT_AUDIO, name="private.mp3")
    httpx.get(f"{url}/private.mp3?token=geheim", headers={"Authorization": "Bearer privat"})
    protected.get("/static/style.css")
    for pattern in (
        r"127.0.0.1 POST /v1/predict 422, 99 bytes, \d\.\d{3} s",
        "a wrong token from 127.0.0.1",
        r"127.0.0.1 GET \(no route\) 401, 0 bytes, .* s",
        "127.0.0.1 GET /static 200, 0 bytes, .* s",
    ):
        wait_for(lambda expected=pattern: any(re.fullmatch(expected, line) for line in caplog.messages))
    assert not re.search("priva|geheim|style", caplog.text)
    assert protected.get(post(protected, song, wait=False).json()["jobs"][0]["href"]).status_code == 200
    assert not any("/v1/jobs" in line for line in caplog.messages)


def test_names_of_parts_in_the_extended_syntax(server):
    for disposition, name in (
        ("filename*=UTF-8''s%C3%B6%22ng.mp3", "sö'ng.mp3"),
        ("filename=a.mp3; filename*=iso-8859-1'de'%E9.mp3", "é.mp3"),
        ("filename=a.mp3; filename*=nothing''x", "a.mp3"),
    ):
        head = f"--x\r\nContent-Disposition: form-data; name=files; {disposition}\r\n\r\n"
        body, headers = (
            head.encode() + NOT_AUDIO + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        problem = check_problem(server.post("/v1/predict", content=body, headers=headers), 422, "unreadable", "")
        assert problem["file"] == name


@pytest.mark.parametrize("name", ["../../../etc/passwd", "https://elsewhere.org/x.mp3", "a\nb", "\x1b[2Jx", "<b>x</b>"])
def test_names_are_never_paths_and_printable(server, name):
    problem = check_problem(post(server, b"#EXTM3U\n/etc/passwd\n", name=name), 422, "unreadable", "")
    assert problem["file"] == name.replace("\n", "?").replace("\x1b", "?")
    assert problem["detail"].isprintable()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb"]))
def test_arbitrary_bytes_are_unprocessable(server, data, head):
    assert post(server, head + data).status_code == 422


def test_events_of_a_job_report_progress_and_the_prediction(server, monkeypatch):
    monkeypatch.setattr(routes_predict, "POLL_SECONDS", 0.01)
    music = encode(make_music(180))
    accepted = server.post("/v1/predict?wait=false", files=[("f", ("a.wav", music)), ("f", ("b.wav", NOT_AUDIO))])
    assert accepted.status_code == 202
    first, second = accepted.json()["jobs"]
    assert accepted.headers["location"] == first["href"]
    with server.stream("GET", first["href"], headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress) and progress[-1] == 1
    assert any(0 < value < 1 for value in progress)
    assert [f"event: {event['state']}" for event in events] == [line for line in lines if line.startswith("event: ")]
    assert events[-1]["state"] == "done"
    assert events[-1]["prediction"] == post(server, music, name="a.wav").json()
    wait_for_state(server, second["href"], "done")
    failed = server.get(second["href"]).json()
    assert failed["problem"]["status"] == 422 and "prediction" not in failed
    assert server.delete(second["href"]).status_code == 204
    assert server.get(second["href"]).status_code == 404


def test_large_bodies_are_rejected_declared_or_not(limited):
    large = bytes(MAX_UPLOAD + 1)
    check_problem(post(limited, large), 413, "too_large", "1.5 MB")
    check_problem(limited.post("/v1/predict", content=iter([large[:-1], b"x"])), 413, "too_large", "1.5 MB")
    check_problem(limited.post("/v1/predict", files={"f": ("a.wav", large)}), 413, "too_large", "1.5 MB")
    request = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n"
    assert b" 413 " in first_bytes(limited, request)  # before the body is sent


def test_senders_that_stall_time_out(limited):
    request = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nRIFF"
    assert b" 408 " in first_bytes(limited, request)
    BLOCK.touch()
    threading.Timer(0.6, BLOCK.unlink).start()
    assert post(limited, encode(make_music(3)), name="hold").status_code == 200  # slow workers don't


def first_bytes(client: httpx.Client, request: bytes) -> bytes:
    """What the server sends first for the bytes of an unfinished request."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(10_000)


def test_full_queue_responds_with_retry_after_and_cancelled_jobs_never_run(limited):
    music = encode(make_music(3))
    submit_held(limited, music)
    first, second = submit(limited, music), submit(limited, music)
    full = post(limited, music)
    check_problem(full, 503, "busy", "try again in")
    assert int(full.headers["retry-after"]) >= 1
    assert limited.get("/v1/health").json()["queued"] == 2
    assert limited.delete(first).status_code == 204
    assert limited.get("/v1/health").json()["queued"] == 1
    BLOCK.unlink()
    wait_for_state(limited, second, "done")
    assert limited.get(second).json()["prediction"]["probabilities"]
    assert limited.get(first).status_code == 404
    three = [("f", (f"{i}.wav", music)) for i in range(3)]
    check_problem(limited.post("/v1/predict", files=three), 413, "too_large", "accepts 2")


def test_bytes_of_all_requests_are_limited(limited):
    large = encode(make_music(MAX_UPLOAD / RATE / 2 - 1))
    submit_held(limited, large)
    queued = submit(limited, large)
    check_problem(post(limited, large), 503, "busy", "try again")  # though the queue isn't full
    BLOCK.unlink()
    wait_for_state(limited, queued, "done")


def test_bytes_of_unfinished_requests_are_limited():
    async def read_once(_: Any, receive: Any, __: Any) -> None:
        await receive()
        await asyncio.sleep(60)

    async def send_part() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(8), "more_body": True}

    async def send_three_requests() -> BaseException | None:
        middleware = SecurityMiddleware(read_once, ServerSettings(max_upload=8, max_held_bytes=16))
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
        requests = [asyncio.ensure_future(middleware(scope, send_part, AsyncMock())) for _ in range(3)]
        (rejected,), pending = await asyncio.wait(requests, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        for request in pending:
            request.cancel()
        return rejected.exception()

    error = asyncio.run(send_three_requests())
    assert isinstance(error, ProblemError) and error.problem.title == "busy"


def test_disconnected_clients_cancel_their_jobs(limited):
    busy = submit_held(limited, encode(make_music(3)))
    before = metrics(limited)['musicclass_files_total{status="ok"}']
    with pytest.raises(httpx.TimeoutException):
        limited.post("/v1/predict", content=encode(make_music(3)), timeout=0.5)
    wait_for(lambda: limited.get("/v1/health").json()["queued"] == 0)
    BLOCK.unlink()
    wait_for_state(limited, busy, "done")
    post(limited, NOT_AUDIO)
    assert metrics(limited)['musicclass_files_total{status="ok"}'] == before + 1


@pytest.mark.parametrize(("name", "title", "detail"), [
    ("crash", "crashed", "crash: its decoder crashed"),
    ("hang", "timeout", "hang: not finished after 8 s"),
    ("swell", "out_of_memory", "swell: .*0.6 GB"),
])  # fmt: skip
def test_faults_of_a_worker_fail_one_file_and_are_logged(limited, name, title, detail, caplog):
    caplog.set_level(logging.INFO, "musicclass.workers")
    music = encode(make_music(9))
    check_problem(post(limited, music, name=name), 422, title, detail)
    assert "a worker was stopped" in caplog.text and name not in caplog.text.replace("crashed", "")
    assert post(limited, music).json()["duration"] == pytest.approx(5, abs=0.01)  # max_seconds


def test_workers_that_fail_to_start_are_restarted(monkeypatch, capfd):
    BLOCK.touch()
    monkeypatch.setattr(jobs, "RESTART_DELAY", 0.2)
    monkeypatch.setattr(jobs, "make_request_task", faulty_tasks.make_request_task)
    with running(ready=False) as client:
        wait_for(lambda: "can't start" in capfd.readouterr().err)
        assert client.get("/v1/health").json()["status"] == "starting"
        BLOCK.unlink()
        wait_for(lambda: client.get("/v1/health").status_code == 200)


@pytest.mark.parametrize("path", PATHS)
def test_security_headers(server, path):
    headers = server.get(path, headers={"Origin": "https://elsewhere.org"}).headers
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert not {"server", "access-control-allow-origin"} & set(headers)


def test_token_is_required(protected, song):
    url = str(protected.base_url)
    for path in ("/", "/v1/model", "/openapi.json", "/nothing"):
        for wrong in ("", "Bearer", "Bearer wrong", "Basic x", basic("geheim", ""), "geheim"):
            response = httpx.get(url + path, headers={"Authorization": wrong})
            check_problem(response, 401, "unauthorized", "Bearer TOKEN")
            assert "Basic" in response.headers["www-authenticate"]
    assert httpx.post(f"{url}/v1/predict", content=song).status_code == 401
    for path in ("/v1/health", "/v1/metrics"):  # which need it from other machines only
        assert httpx.get(url + path).status_code == 200
        for header in ({"Host": "elsewhere.org"}, {"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=127.0.0.1"}):
            assert httpx.get(url + path, headers=header).status_code == 401
    assert post(protected, song).status_code == 200
    for right in (basic("anyone", "geheim"), "bearer geheim"):
        assert httpx.get(url, headers={"Authorization": right, "Host": "elsewhere.org"}).status_code == 200


def test_pages_of_allowed_origins_may_send_requests(protected):
    friend = {"Origin": "https://friend.org", "Content-Type": "audio/wav"}
    preflight = {"Access-Control-Request-Method": "POST", "Origin": "https://friend.org"}
    allowed = protected.options("/v1/predict", headers=preflight).headers["access-control-allow-origin"]
    response = protected.post("/v1/predict", content=encode(make_music(3)), headers=friend)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == allowed == "https://friend.org"
    foe = protected.post("/v1/predict", content=b"x", headers={"Origin": "https://foe.org"})
    check_problem(foe, 403, "forbidden", "")


def metrics(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/v1/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def test_metrics_count_files(server, song):
    before = metrics(server)
    genre = post(server, song).json()["genre"]
    post(server, NOT_AUDIO)
    after = metrics(server)
    for name, increment in (
        ('musicclass_files_total{status="ok"}', 1), ('musicclass_files_total{status="unreadable"}', 1),
        (f'musicclass_genres_total{{genre="{genre}"}}', 1), ("musicclass_audio_seconds_total", 24),
        ("musicclass_inference_seconds_count", 2), ("musicclass_queued_files", 0),
    ):  # fmt: skip
        assert after[name] - before.get(name, 0) == pytest.approx(increment), name
    assert after["musicclass_workers"] == 1


def test_model_card_for_the_web_ui(server, classifier):
    card = server.get("/v1/model").json()
    assert card["genres"] == list(classifier.genres) == list(card["colors"])
    assert card["limits"] == {"bytes": 200_000_000, "seconds": 7200.0}
    assert card["min_confidence"] is None
    assert "versions" not in card and isinstance(card["history"], list)
    for name in ("model.onnx", "frontend.onnx"):
        assert server.get(f"/v1/model/{name}").content == (classifier.model.path / name).read_bytes()
    assert card["tags"] == (list(tagger.TAGS) if classifier.model.uses_tagger else [])
    assert server.get("/v1/model/pooling.onnx").content == (classifier.model.path / "pooling.onnx").read_bytes()
    assert server.get("/v1/model/tagger.onnx").status_code == (200 if tagger.available() else 404)


def test_uploads_never_touch_the_disk(song, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:  # files without a name don't show in the folder
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with running() as client:
        large = encode(np.tile(make_music(60), 3))
        assert client.post("/v1/predict", files={"f": ("a.wav", large)}).status_code == 200
        post(client, NOT_AUDIO)
        assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_openapi_has_the_schema_of_the_prediction(server):
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["PredictResponse"]["required"]) == {field.name for field in fields(Prediction)} - {"embedding"}
    assert set(schemas["Segment"]["required"]) == {field.name for field in fields(Segment)}
    assert "HTTPValidationError" not in schemas


def test_api_page_shows_the_openapi_document(server):
    document = server.get("/openapi.json").json()
    page = server.get("/api")
    text = re.sub(r"\s+", " ", re.sub("</?code>", "`", html.unescape(page.text)))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in text and operation["description"] in text
            assert all(f"`{each['name']}`" in text for each in operation.get("parameters", []))
    links = re.findall(r'href="#([^"]+)"', text)
    assert set(document["components"]["schemas"]) <= {link.removeprefix("schema-") for link in links}
    assert all(f'id="{link}"' in text for link in links)
    assert document["components"]["schemas"]["PredictResponse"]["properties"]["duration"]["description"] in text
    assert "seconds" in document["components"]["schemas"]["Segment"]["properties"]["start"]["description"]
    assert "<script" not in text and "http://127.0.0.1:8000/v1/predict" in text
    assert 'href="api"' in server.get("/").text


def test_pages_without_libraries_say_what_to_do(monkeypatch, tmp_path, classifier):
    monkeypatch.setattr(web_pages, "LIBRARIES", [tmp_path / "alpine"])
    pages = web_pages.make_pages(classifier.model, ServerSettings(), make_app(ServerSettings()).openapi())
    assert {path for path, page in pages.items() if "python hatch_build.py" in page and "<script" not in page} == {
        "/", "/library",
    }  # fmt: skip


def test_openapi_describes_the_token(server, protected):
    for client, required in ((server, []), (protected, [{"bearer": []}, {"basic": []}])):
        document = client.get("/openapi.json").json()
        assert document["security"] == required
        assert {scheme["scheme"] for scheme in document["components"]["securitySchemes"].values()} == {
            "bearer",
            "basic",
        }


def test_client_of_the_readme(server, song, tmp_path, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "song.mp3").write_bytes(song)
    code = next(block for block in blocks if "Client" in block).replace("http://127.0.0.1:8000", str(server.base_url))
    exec(code.replace("song.mp3", (tmp_path / "song.mp3").as_posix()), {})
    assert capsys.readouterr().out.strip() == post(server, song).json()["genre"]


def test_ctrl_c_stops_the_server(tmp_path):
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import musicclass.__main__"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--workers", "1", "--no-open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url
        wait_for(lambda: httpx.get(f"{url[0]}v1/health").status_code in (200, 503))
        process.send_signal(2)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert "Traceback" not in rest


def test_invalid_options_are_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, detail in (
            (("--port", port), "try another --port"), (("--host", "0.0.0.0"), "--token"),
            (("--allow-origin", "example.org"), "https://example.org"),
        ):  # fmt: skip
            assert main_of("serve", *options) == 2
            assert detail in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "/music"])  # whether the proxy strips it or not
def test_paths_behind_a_proxy(song, prefix):
    with running(root_path="/music/", token=" secret ") as client:
        client.headers["Authorization"] = "Bearer secret"
        for path in ("/", "/model", "/static/songs.js", "/static/style.css", "/openapi.json"):
            assert client.get(prefix + path).status_code == 200
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/music"}]
        jobs = client.post(f"{prefix}/v1/predict?wait=false", content=song)
        assert jobs.headers["location"].startswith("/music/v1/jobs/")
        assert client.get(jobs.headers["location"]).status_code == 200
        assert not re.search(r'(?:href|src)="/', client.get("/").text)


def test_unfinished_heads_and_slow_bodies_are_closed(limited):
    assert first_bytes(limited, b"GET / HTTP/1.1\r\nHost: localhost\r\n") == b""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((limited.base_url.host, limited.base_url.port or 80), timeout=0.1) as connection:
        connection.sendall(head)
        for _ in range(50):
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                response = connection.recv(100)
                break
    assert b" 408 " in response


def test_connections_are_fewer_than_file_descriptors(monkeypatch, song):
    monkeypatch.setattr(connections, "max_connections", lambda: 8)
    with running(receive_timeout=1.0) as client:
        host = (client.base_url.host, client.base_url.port or 80)
        held = [socket.create_connection(host) for _ in range(12)]
        assert sum(each.recv(1) == b"" for each in held[-4:]) == 4
        wait_for(lambda: client.get("/v1/health").status_code == 200)  # once they have timed out
        for each in held:
            each.close()


def test_requests_when_the_server_stops_get_503(song, monkeypatch, capfd):
    monkeypatch.setattr(jobs, "make_request_task", faulty_tasks.make_request_task)
    with ThreadPoolExecutor() as threads, running() as client:
        BLOCK.touch()
        url = f"{client.base_url}/v1/predict?name=hold"
        response = threads.submit(httpx.post, url, content=song, timeout=30)
        wait_for(lambda: client.get("/v1/health").json()["queued"] == 0)
        time.sleep(0.3)
    BLOCK.unlink()
    check_problem(response.result(), 503, "stopping", "try again")
    assert "Traceback" not in capfd.readouterr().err
