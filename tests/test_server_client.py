"""The client of the HTTP API: results as in Python, problems as one exception, retries."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from musicclass import tagger
from musicclass.client import Client, ServerError
from musicclass.prediction import rounded
from tests.conftest import make_music, make_noise
from tests.serving import main_of, running


@pytest.fixture(scope="module")
def address():
    with running(token="secret") as client:
        yield str(client.base_url)


def test_results_are_those_of_the_classifier(address, classifier, wav):
    client, song = Client(address, "secret"), wav(make_music(12), name="söng.wav")
    expected = rounded(classifier.predict(song))
    prediction = client.predict(song, embedding=True)
    assert (prediction.file, prediction.genre, prediction.tags) == ("söng.wav", expected.genre, expected.tags)
    assert prediction.segments == expected.segments
    if tagger.available():
        np.testing.assert_allclose(prediction.embedding, expected.embedding, rtol=1e-5)
    assert client.predict(song.read_bytes()).embedding is None
    explanation = client.explain(song, genre="jazz")
    local = classifier.explain(song, "jazz")
    assert explanation.prediction == client.predict(song) and explanation.summary == local.summary()
    assert explanation.top_spans == local.top_spans()
    assert explanation.top_band == pytest.approx(local.top_band(), rel=1e-5)
    np.testing.assert_allclose(explanation.weights, local.weights, atol=1e-5)


def test_problems_are_one_exception(address, tmp_path):
    song = tmp_path / "broken.mp3"
    song.write_bytes(b"x" * 999)
    client = Client(f"{address}/", "secret")
    for call, status, title, detail in (
        (lambda: client.predict(song), 422, "unreadable", "broken.mp3: not audio"),
        (lambda: client.explain(song, "polka"), 422, "unknown_genre", "no genre 'polka'"),
        (lambda: client.similar(song), 404, "not_found", "/v1/similar"),
        (lambda: list(client.library()), 404, "not_found", "/v1/library/songs"),
        (lambda: Client(address, "wrong").predict(song), 401, "unauthorized", "token"),
        (lambda: Client("http://127.0.0.1:9").predict(song), 0, "unreachable", "is the server running"),
    ):
        with pytest.raises(ServerError, match=detail) as caught:
            call()
        assert (caught.value.status, caught.value.title) == (status, title)
        assert str(caught.value) == caught.value.detail
    with pytest.raises(ValueError, match="http://"):
        Client("file:///etc")


@pytest.mark.skipif(not tagger.available(), reason="built without the tagger: python hatch_build.py")
def test_library_and_similar_songs(wav, tmp_path, monkeypatch):
    monkeypatch.setattr("musicclass.client.PAGE_SIZE", 2)
    sounds = {"a": make_music(6), "b": make_noise(3), "c": make_music(24)[-10 * 22_050 :]}
    paths = [wav(samples, name=f"music/{name}.wav") for name, samples in sounds.items()]
    table = tmp_path / "genres.jsonl"
    assert main_of("library", str(tmp_path), "--out", str(table), "--embeddings") == 0
    with running(library=table) as server:
        client = Client(str(server.base_url))
        songs = list(client.library())
        assert [song.path for song in songs] == list(map(str, paths)) and len(list(client.library("b.wav"))) == 1
        expected = client.similar(songs[0])
        assert {song.path for song in expected} == {str(paths[1]), str(paths[2])}
        assert [song.row for song in client.similar(paths[0])] == [song.row for song in expected]
        embedding = client.predict(paths[0], embedding=True).embedding
        assert [song.row for song in client.similar(embedding, top=1)] == [expected[0].row]


def test_busy_servers_are_asked_again():
    class Busy(BaseHTTPRequestHandler):
        responses_left = 2

        def do_GET(self):
            Busy.responses_left -= 1
            status, body = (503, b"busy") if Busy.responses_left >= 0 else (200, b'{"songs": []}')
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert list(Client(url).library()) == [] and Busy.responses_left == -1
        Busy.responses_left = 5
        with pytest.raises(ServerError, match="status 503"):
            list(Client(url, retries=1).library())
        assert Busy.responses_left == 3
        server.shutdown()
