"""The API: the same answers as everywhere, limits that hold, refusals that say why, and nothing left behind."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musicclass.classifier import Classifier
from musicclass.errors import ConfigError
from musicclass.web.guard import HEADERS
from musicclass.web.serve import serve
from musicclass.web.settings import Settings
from tests import hostile
from tests.conftest import RATE, ROOT, make_music, make_noise
from tests.serving import main_of, running, tried_by_schemathesis, wait_for


def as_file(samples: np.ndarray, kind: str = "WAV", rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def song() -> bytes:
    return as_file(make_music())


@pytest.fixture(scope="module")
def long_silence() -> bytes:
    """Small to send, long to hear."""
    return as_file(np.zeros((RATE * 6000, 1), np.float32), "FLAC")


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with running() as client:
        yield client


def post(client: httpx.Client, data: bytes, **query: object) -> httpx.Response:
    return client.post("/v1/predict", content=data, params=query, headers={"Content-Type": "audio/wav"})


def is_problem(answer: httpx.Response, status: int, word: str) -> bool:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert set(told) >= {"type", "title", "status", "detail"}
    assert told["type"].startswith("urn:musicclass:")
    return word in told["detail"]


def test_same_answer_as_the_command_line(
    server: httpx.Client, song: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(song)
    assert main_of("predict", str(path), "--json") == 0
    printed = json.loads(capsys.readouterr().out) | {"file": "song.wav"}
    raw = post(server, song, name="song.wav").json()
    form = server.post("/v1/predict", files={"f": ("song.wav", song)}).json()["files"][0]
    looked_at = post(server, song, name="song.wav", peaks=100, explain=True).json()
    assert raw == form == printed
    assert {name: looked_at[name] for name in raw} == raw


def test_every_format_is_heard(server: httpx.Client) -> None:
    music = make_music(6)
    for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF"):
        assert post(server, as_file(music, kind)).json()["duration"] == pytest.approx(6, abs=0.1), kind


def test_peaks_and_explanation_fit_the_file(server: httpx.Client, song: bytes, classifier: Classifier) -> None:
    told = post(server, song, peaks=120, explain=True, genre="jazz").json()
    assert len(told["peaks"]) == 120
    loudest = np.abs(soundfile.read(io.BytesIO(song))[0]).reshape(120, -1).max(axis=1)
    assert np.abs(told["peaks"] - loudest).max() < 0.05
    why = classifier.explain(io.BytesIO(song), "jazz")
    assert told["explanation"]["seconds"] == [list(pair) for pair in why.seconds()]
    assert told["explanation"]["genre"] == "jazz"
    picture = told["explanation"]["log_mel"]
    assert len(base64.b64decode(picture["data"])) == picture["width"] * picture["height"]
    assert post(server, as_file(make_music(1.0)), peaks=5000).json()["peaks"] == pytest.approx([0.5] * 50, abs=0.5)


def test_several_files_each_get_an_answer_or_a_reason(server: httpx.Client, song: bytes) -> None:
    files = [("f", ("a.wav", song)), ("f", ("b.mp3", b"no music")), ("g", ("c.wav", as_file(np.zeros(RATE * 3))))]
    answer = server.post("/v1/predict", files=files)
    assert answer.status_code == 200
    first, second, third = answer.json()["files"]
    assert first["file"] == "a.wav" and first["probabilities"]
    assert second["title"] == "unreadable" and second["file"] == "b.mp3" and "b.mp3: not audio" in second["detail"]
    assert third["title"] == "silent"
    none = server.post("/v1/predict", files=files[1:])
    assert is_problem(none, 422, "b.mp3: not audio")
    assert [told["title"] for told in none.json()["files"]] == ["unreadable", "silent"]


@pytest.mark.parametrize(
    ("headers", "data", "query", "status", "word"),
    [
        ({"Content-Type": "application/json"}, b"{}", "", 415, "can't hear application/json"),
        ({"Content-Type": "audio/mpeg"}, b"", "", 422, "holds no sound|empty|not audio"),
        ({"Content-Type": "audio/mpeg"}, b"x" * 99, "?name=x.mp3", 422, "x.mp3: not audio"),
        ({"Content-Type": "audio/mpeg"}, b"x", "?peaks=-1", 422, "peaks: Input should be"),
        ({"Content-Type": "audio/mpeg"}, b"x", "?genre=polka", 422, "doesn't know 'polka'; it knows blues"),
        ({"Content-Type": "multipart/form-data"}, b"x", "", 400, "boundary"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--b--\r\n", "", 422, "holds no file"),
        ({"Content-Type": "audio/mpeg", "Origin": "https://elsewhere.org"}, b"x", "", 403, "other sites"),
        ({"Content-Type": "audio/mpeg", "Host": "elsewhere.org"}, b"x", "", 421, "elsewhere.org"),
        ({"Content-Type": "audio/mpeg", "Host": "["}, b"x", "", 421, "127.0.0.1"),
        ({"Content-Type": "audio/mpeg", "Origin": "http://["}, b"x", "", 403, "--cors"),
    ],
)
def test_refusals_say_why(
    server: httpx.Client, headers: dict[str, str], data: bytes, query: str, status: int, word: str
) -> None:
    answer = server.post(f"/v1/predict{query}", content=data, headers=headers)
    is_problem(answer, status, "")
    assert re.search(word, answer.json()["detail"])


def test_unknown_addresses_and_jobs(server: httpx.Client) -> None:
    assert is_problem(server.get("/v1/nothing"), 404, "/v1/nothing")
    assert is_problem(server.get("/v1/predict"), 405, "/v1/predict")
    assert is_problem(server.get(f"/v1/jobs/{'0' * 32}"), 404, "send it again")
    assert is_problem(server.get("/v1/jobs/x"), 422, "id")
    assert server.get("/../../etc/passwd").status_code == 404


def test_names_are_never_paths(server: httpx.Client) -> None:
    for name in ("../../../etc/passwd", "/etc/passwd", "https://elsewhere.org/x.mp3", "a\nb"):
        told = post(server, b"#EXTM3U\n/etc/passwd\n", name=name).json()
        assert told["title"] == "unreadable"
        assert told["file"] == name.replace("\n", "?")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb"]))
def test_no_bytes_break_it(server: httpx.Client, data: bytes, head: bytes) -> None:
    assert post(server, head + data).status_code == 422


def test_a_job_tells_how_far_it_is(server: httpx.Client, song: bytes) -> None:
    music = as_file(make_music(120))
    taken = server.post("/v1/predict?wait=false", files=[("f", ("a.wav", music)), ("f", ("b.wav", b"no music"))])
    assert taken.status_code == 202
    first, second = taken.json()["jobs"]
    assert taken.headers["location"] == first["href"]
    states = []
    with server.stream("GET", first["href"], headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
    shares = [state["share"] for state in states]
    assert shares == sorted(shares) and shares[-1] == 1
    assert any(0 < share < 1 for share in shares)
    assert states[-1]["state"] == "done"
    assert states[-1]["answer"] == post(server, music, name="a.wav").json()
    wait_for(lambda: server.get(second["href"]).json()["state"] == "done")
    told = server.get(second["href"]).json()
    assert told["problem"]["status"] == 422 and "answer" not in told
    assert server.delete(second["href"]).status_code == 204
    assert server.get(second["href"]).status_code == 404


def test_too_large_is_refused_declared_or_not(song: bytes) -> None:
    with running(max_body=100_000, workers=1) as client:
        assert is_problem(post(client, song), 413, "0.1 MB")
        chunked = client.post("/v1/predict", content=iter([song[:60_000]] * 2), headers={"Content-Type": "audio/wav"})
        assert is_problem(chunked, 413, "0.1 MB")
        assert is_problem(client.post("/v1/predict", files={"f": ("a.wav", song)}), 413, "0.1 MB")
        with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:  # and is not read
            raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n")
            raw.settimeout(10)
            assert b" 413 " in raw.recv(1000)


def test_a_slow_sender_is_let_go(song: bytes) -> None:
    with running(slow=0.3, workers=1) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
            raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nRIFF")
            raw.settimeout(10)
            assert b" 408 " in raw.recv(1000)
        assert post(client, song).status_code == 200  # which takes longer to answer than 0.3 s, or may


def test_a_full_queue_says_when_to_come_again(song: bytes, long_silence: bytes) -> None:
    with running(workers=1, queue=2) as client:
        href = "/v1/predict?wait=false"
        busy = client.post(href, content=long_silence).json()["jobs"][0]
        wait_for(lambda: client.get(busy["href"]).json()["state"] == "hearing")
        waiting = [client.post(href, content=song).json()["jobs"][0] for _ in range(2)]
        full = client.post(href, content=song)
        assert is_problem(full, 503, "try again in")
        assert int(full.headers["retry-after"]) >= 1
        assert client.get("/v1/health").json()["waiting"] == 2
        assert client.delete(waiting[0]["href"]).status_code == 204
        wait_for(lambda: client.get(waiting[1]["href"]).json()["state"] == "done")
        assert client.get(waiting[1]["href"]).json()["answer"]["probabilities"]


def test_bytes_that_wait_are_bounded(song: bytes, long_silence: bytes) -> None:
    with running(workers=1, max_body=len(song) + 1000, max_waiting_bytes=0) as client:  # then it is room for two
        busy = client.post("/v1/predict?wait=false", content=long_silence).json()["jobs"][0]
        wait_for(lambda: client.get(busy["href"]).json()["state"] == "hearing")
        assert client.post("/v1/predict?wait=false", content=song).status_code == 202
        assert is_problem(client.post("/v1/predict?wait=false", content=song), 503, "try again")


def test_what_hangs_or_swells_is_ended(song: bytes) -> None:
    with running(workers=1, timeout=0.4) as client:
        told = post(client, as_file(np.zeros((RATE * 7000, 1), np.float32), "FLAC"), name="bomb.flac")
        assert is_problem(told, 422, "bomb.flac: not done after 0.4 s")
        assert told.json()["title"] == "timed out"
        assert post(client, as_file(make_music(3))).status_code == 200


def test_only_so_long_is_heard() -> None:
    with running(workers=1, max_seconds=5) as client:
        assert post(client, as_file(make_music(9))).json()["duration"] == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("path", ["/", "/v1/health", "/v1/model", "/v1/metrics", "/openapi.json", "/nothing"])
def test_every_answer_is_protected(server: httpx.Client, path: str) -> None:
    answer = server.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in server.get(path, headers={"Origin": "https://elsewhere.org"}).headers


def test_with_a_token_every_request_needs_it(song: bytes) -> None:
    with running(token="geheim", workers=1, host="0.0.0.0") as client:
        url = str(client.base_url)
        for path in ("/", "/v1/health", "/v1/model", "/v1/metrics", "/openapi.json", "/nothing"):
            for wrong in ("", "Bearer", "Bearer wrong", "Basic x", basic("geheim", ""), "geheim"):
                answer = httpx.get(url + path, headers={"Authorization": wrong})
                assert is_problem(answer, 401, "Bearer TOKEN")
                assert "Basic" in answer.headers["www-authenticate"]
        assert httpx.post(f"{url}/v1/predict", content=song).status_code == 401
        assert post(client, song).status_code == 200
        assert httpx.get(url, headers={"Authorization": basic("anyone", "geheim")}).status_code == 200
        assert httpx.get(url, headers={"Authorization": "bearer geheim", "Host": "elsewhere.org"}).status_code == 200


def basic(name: str, word: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{word}".encode()).decode()


def test_other_machines_need_a_token() -> None:
    with pytest.raises(ConfigError, match="--token"):
        serve(Settings(host="0.0.0.0"), browser=False)


def test_pages_of_other_sites_may_ask_when_allowed(song: bytes) -> None:
    with running(origins=("https://friend.org",), workers=1) as client:
        ask = {"Access-Control-Request-Method": "POST", "Origin": "https://friend.org"}
        assert client.options("/v1/predict", headers=ask).headers["access-control-allow-origin"] == ask["Origin"]
        headers = {"Origin": "https://friend.org", "Content-Type": "audio/wav"}
        answer = client.post("/v1/predict", content=song, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://friend.org"
        assert client.post("/v1/predict", content=song, headers={"Origin": "https://foe.org"}).status_code == 403


def test_metrics_count(server: httpx.Client, song: bytes) -> None:
    def counts() -> dict[str, float]:
        lines = server.get("/v1/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    before = counts()
    post(server, song)
    post(server, b"no music")
    after = counts()
    for name, more in (('musicclass_files_total{status="ok"}', 1), ("musicclass_music_seconds_total", 24)):
        assert after[name] - before.get(name, 0) == pytest.approx(more)
    assert after['musicclass_files_total{status="unreadable"}'] >= 1
    assert after["musicclass_workers"] == 2


def test_more_files_than_there_is_ever_room_for(song: bytes) -> None:
    with running(workers=1, queue=2) as client:
        three = [("f", (f"{i}.wav", song)) for i in range(3)]
        assert is_problem(client.post("/v1/predict", files=three), 413, "takes 2")
        assert client.post("/v1/predict", files=three[:2]).status_code == 200


def test_workers_that_cannot_start_are_told_and_tried_again(
    song: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("musicclass.web.jobs.AGAIN_SECONDS", 0.2)
    monkeypatch.setattr("musicclass.web.jobs.make_hearer", hostile.make_nothing_yet)
    hostile.NOT_YET.touch()
    try:
        with running(ready=False, workers=1) as client:
            wait_for(lambda: "can't start" in capfd.readouterr().err)
            assert client.get("/v1/health").status_code == 503
            hostile.NOT_YET.unlink()
            wait_for(lambda: client.get("/v1/health").status_code == 200)
            assert post(client, song).status_code == 200
    finally:
        hostile.NOT_YET.unlink(missing_ok=True)


def test_a_connection_without_a_request_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musicclass.web.serve.HEAD_SECONDS", 0.5)
    with running(workers=1) as client:
        address = (client.base_url.host, client.base_url.port)
        for first in (b"", b"POST /v1/predict HT", b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1"):
            with socket.create_connection(address, timeout=10) as line:
                line.sendall(first)
                while line.recv(10_000):
                    pass
        assert client.get("/v1/health").status_code == 200


def test_nothing_touches_the_disk(song: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:  # files without a name wouldn't be seen in the folder
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with running(workers=1) as client:
        large = as_file(np.tile(make_music(60), 3))
        assert client.post("/v1/predict", files={"f": ("a.wav", large)}).status_code == 200
        post(client, b"no music")
        assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_openapi_describes_what_is_there(server: httpx.Client) -> None:
    told = server.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/jobs/{id}", "/v1/model", "/v1/health", "/v1/metrics"} <= set(told["paths"])
    assert told["components"]["schemas"]["Answer"]["example"]["genre"] == "jazz"


def test_schemathesis_finds_no_server_error(server: httpx.Client) -> None:
    assert tried_by_schemathesis(server) > 50


def test_the_client_in_the_readme(server: httpx.Client, song: bytes, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "httpx" in block)
    made: dict[str, Any] = {}
    exec(code, made)
    for name, data in (("song.wav", song), ("broken.mp3", b"no music")):
        (tmp_path / name).write_bytes(data)
    answer = post(server, song).json()
    assert made["genre_of"](tmp_path / "song.wav", str(server.base_url)) == (answer["genre"], answer["confidence"])
    with pytest.raises(RuntimeError, match=r"broken\.mp3"):
        made["genre_of"](tmp_path / "broken.mp3", str(server.base_url))
    with pytest.raises(RuntimeError, match="token"), running(token="a word", workers=1) as client:
        assert made["genre_of"](tmp_path / "song.wav", str(client.base_url), "a word")[0] == answer["genre"]
        made["genre_of"](tmp_path / "song.wav", str(client.base_url), "another")


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "musicclass", "serve", "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url
        wait_for(lambda: httpx.get(f"{url[0]}v1/health").status_code in (200, 503))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 130
    assert "Traceback" not in rest


def test_a_taken_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main_of("serve", "--port", str(taken.getsockname()[1])) == 2
    assert "try another --port" in capsys.readouterr().err


def test_a_client_that_leaves_is_not_heard(song: bytes, long_silence: bytes) -> None:
    with running(workers=1) as client:
        busy = client.post("/v1/predict?wait=false", content=long_silence).json()["jobs"][0]
        with pytest.raises(httpx.TimeoutException):
            client.post("/v1/predict", content=song, timeout=0.5)
        wait_for(lambda: client.get("/v1/health").json()["waiting"] == 0, 10)
        assert client.get(busy["href"]).json()["state"] == "hearing"  # so it wasn't taken up, but dropped
        wait_for(lambda: client.get(busy["href"]).json()["state"] == "done")
        post(client, b"no music")
        assert 'musicclass_files_total{status="ok"}' not in client.get("/v1/metrics").text


def test_noise_is_unknown(server: httpx.Client) -> None:
    assert post(server, as_file(make_noise(10))).json()["genre"] == "unknown"
