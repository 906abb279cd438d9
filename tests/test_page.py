"""The web UI as people use it, in headless Chromium (apt install chromium)."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect

from musicclass import tagger
from musicclass.library.genre_tags import read_genres
from musicclass.library.report import html_report
from musicclass.model_page import render_model
from musicclass.saved_model import MODEL, load_model, save_model
from musicclass.server.app import STATIC
from musicclass.training.browser_graph import build_browser_graphs
from musicclass.windows import SWITCHING_COST, most_probable_path
from tests import pages
from tests.conftest import RATE, SHARED, make_music, make_noise
from tests.pages import add_songs, open_page, require, require_runtime, switch_to_browser, wait_until_done
from tests.serving import main_of, running, wait_for
from tests.test_library_table import read_map
from tests.test_tagger_branch import add_tagger_branch

CLIPS = SHARED / "gtzan/genres_original"
EXPLAIN_IN_BROWSER = """async ([data, genre]) => {
    const {loadModel, explainInBrowser} = await import("/static/browser.js");
    await loadModel();
    const file = new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], "music.wav");
    const {log_mel, ...explanation} = await explainInBrowser(file, genre, () => {});
    return explanation;
}"""
PATH_IN_BROWSER = """async ([rows, cost]) =>
    (await import("/static/browser-worker.js")).mostProbablePath(rows, cost)"""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ENLARGE_TEXT = """() => {
    const style = new CSSStyleSheet();
    style.replaceSync("html { font-size: 200% }");
    document.adoptedStyleSheets = [style];
}"""
BACKGROUNDS = "all => all.map(each => getComputedStyle(each).backgroundColor)"


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pages.write_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="module")
def browser(songs: list[Path]) -> Iterator[Browser]:
    require(pages.CHROMIUM, "needs Chromium: apt install chromium")
    with pages.launch_browser(microphone=songs[1]) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with running(max_upload=pages.MAX_UPLOAD) as client:
        yield client


@pytest.fixture(scope="module")
def library_server(songs: list[Path]) -> Iterator[httpx.Client]:
    table = songs[0].with_name("genres.parquet")
    main_of("library", *map(str, songs), "--out", str(table), "--embeddings")
    with running(library=table) as client:
        yield client


@pytest.fixture(scope="module")
def tagger_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of `gtzan`, whose probabilities depend on the tagger's embeddings as well."""
    require(tagger.available(), "needs the tagger: python hatch_build.py")
    gtzan = load_model("gtzan")
    config = gtzan.card["config"]
    architecture = {"architecture": f"{config['model']['architecture']}+tagger"}
    card = gtzan.card | {"config": config | {"model": config["model"] | architecture}}
    frontend, pooling = build_browser_graphs(gtzan.features, uses_tagger=True)
    folder = tmp_path_factory.mktemp("music")
    save_model(folder, add_tagger_branch((gtzan.path / MODEL).read_bytes()), frontend, card, pooling)
    with running(model=str(folder)) as client:
        yield client


@pytest.fixture
def page(browser: Browser, server: httpx.Client) -> Iterator[Page]:
    with open_page(browser, str(server.base_url)) as opened:
        yield opened


def pixel(part: Locator, x: float, y: float) -> Any:
    """The color at a place of a part of the page, as shares of its width and height."""
    image = Image.open(io.BytesIO(part.screenshot()))
    return image.getpixel((int(x * image.width), int(y * image.height)))


def exported(page: Page, kind: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=kind, exact=True).click()
    assert download.value.suggested_filename == f"genres.{kind.lower()}"
    return download.value.path().read_bytes().decode()


def predictions(page: Page) -> dict[str, Any]:
    return {song["file"]: song for song in json.loads(exported(page, "JSON"))}


def check_browser_against_server(page: Page, files: list[Path]) -> dict[str, Any]:
    """Classify files on the server, then in the browser alone and offline; returns the predictions of the latter."""
    require_runtime()
    add_songs(page, *files)
    on_server = predictions(page)
    page.get_by_role("button", name="Remove all").click()
    switch_to_browser(page)
    page.context.set_offline(True)
    add_songs(page, *files)
    in_browser = predictions(page)
    assert len(in_browser) == len(files)
    card = httpx.get(f"{page.url}v1/model").json()
    for name, expected in on_server.items():
        segments = zip(in_browser[name]["segments"], expected["segments"], strict=True)
        for part, expected_part in [(in_browser[name], expected), *segments]:
            assert part.keys() == expected_part.keys()
            assert (part["genre"], part["top_genre"]) == (expected_part["genre"], expected_part["top_genre"])
            for key in ("confidence", "familiarity", "probabilities"):
                assert part[key] == pytest.approx(expected_part[key], abs=0.02)
        assert in_browser[name]["tags"] == pytest.approx(expected["tags"], abs=0.02)
        assert bool(expected["tags"]) == bool(card["tags"])
    return in_browser


def test_song_is_classified_on_the_server_and_exported(page: Page, songs: list[Path], server: httpx.Client) -> None:
    disco = songs[1].read_bytes()
    hostile = songs[1].with_name('=1+1,"<b>x.wav')
    hostile.write_bytes(disco)
    add_songs(page, songs[1], songs[3], hostile)
    hostile.unlink()
    prediction = server.post("/v1/predict?name=Disco.wav", content=disco).json()
    card = page.locator("#cards article").first
    expect(card.locator(".headline")).to_have_text("electronic")
    expect(card.locator(".confidence")).to_have_text(f"{round(100 * prediction['confidence'])}% confident")
    expect(card.locator(".probabilities .legend li").first).to_contain_text("electronic")
    expect(card.locator(".bars li")).to_have_count(len(prediction["probabilities"]))
    expect(page.locator("#cards h2").nth(2)).to_have_text(hostile.name)
    expect(page.locator("#status")).to_have_text("2 of 3 songs classified, 1 failed.")
    rows = list(csv.DictReader(exported(page, "CSV").splitlines()))
    assert [row["file"] for row in rows] == ["Disco.wav", "Broken.mp3", f"'{hostile.name}"]
    probabilities = {f"prob_{genre}": f"{value:.6f}" for genre, value in prediction["probabilities"].items()}
    assert rows[0] == {name: str(prediction[name]) for name in ("file", "genre", "top_genre")} | {
        "confidence": f"{prediction['confidence']:.6f}", "familiarity": f"{prediction['familiarity']:.6f}",
        "duration": "24.000", "tags": ", ".join(prediction["tags"]), "label": "", **probabilities, "error": "",
    }  # fmt: skip
    assert "not audio" in rows[1]["error"]
    assert predictions(page)["Disco.wav"] == prediction


def test_browser_alone_predicts_as_the_server_does(page: Page, songs: list[Path], tmp_path: Path) -> None:
    samples, rate = soundfile.read(songs[1])
    files = [songs[0], tmp_path / "stereo.mp3", tmp_path / "low rate.wav", tmp_path / "silence.wav"]
    soundfile.write(files[1], np.stack([samples, 0.5 * samples], axis=1)[: 15 * rate], rate)
    soundfile.write(files[2], make_music(15), RATE)
    soundfile.write(files[3], np.concatenate([make_music(12), np.zeros(40 * RATE)]), RATE)
    segments = check_browser_against_server(page, files)["silence.wav"]["segments"]
    assert None in {segment["genre"] for segment in segments}


def test_browser_finds_the_most_probable_path_as_python_does(page: Page) -> None:
    require_runtime()
    rng = np.random.default_rng(0)
    for cost in (0.0, SWITCHING_COST, 1e9):
        probabilities = rng.dirichlet(np.full(12, 0.3), 40).astype(np.float32)
        probabilities[[0, 17]] = 0
        in_browser = page.evaluate(PATH_IN_BROWSER, [probabilities.tolist(), cost])
        assert in_browser == most_probable_path(probabilities, cost)
        assert (in_browser == page.evaluate(PATH_IN_BROWSER, [probabilities.tolist()])) == (cost == SWITCHING_COST)


@pytest.mark.slow
def test_browser_alone_runs_the_tagger_as_the_server_does(
    browser: Browser, tagger_server: httpx.Client, songs: list[Path], tmp_path: Path
) -> None:
    short, gap = tmp_path / "short.wav", tmp_path / "gap.wav"
    soundfile.write(short, make_music(2.5), RATE)
    soundfile.write(gap, np.concatenate([make_music(8), np.zeros(10 * RATE), make_music(100)]), RATE)
    with open_page(browser, str(tagger_server.base_url)) as page:
        in_browser = check_browser_against_server(page, [*songs[:3], short, gap])
        page.get_by_role("button", name="Cards").click()
        for card, name in zip(page.locator("#cards article").all(), in_browser, strict=True):
            expect(card.locator(".tags li")).to_have_text(list(in_browser[name]["tags"]))
        n_unknown = page.locator("#cards .confidence", has_text="closest to").count()
        assert page.locator("#cards .headline", has_text="Closest to").count() == n_unknown > 0


@pytest.mark.slow
def test_browser_alone_predicts_real_clips_as_the_server_does(page: Page) -> None:
    require(CLIPS.exists(), "needs GTZAN clips in ../shared/data")
    check_browser_against_server(page, sorted(CLIPS.glob("*/*.flac"))[::3])


@pytest.mark.slow
def test_browser_alone_reports_errors_and_drops_removed_songs(page: Page, songs: list[Path], tmp_path: Path) -> None:
    require_runtime()
    short, silent = tmp_path / "short.wav", tmp_path / "silent.flac"
    soundfile.write(short, make_noise(0.5), RATE)
    soundfile.write(silent, np.zeros(3 * RATE), RATE)
    switch_to_browser(page)
    add_songs(page, songs[3], short, silent)
    errors = [song["error"] for song in predictions(page).values()]
    for error, reason in zip(errors, ["Broken.mp3: not audio", "at least 1 s", "silence"], strict=True):
        assert reason in error
    page.get_by_role("button", name="Remove all").click()
    page.set_input_files("#files", songs[0])
    page.get_by_role("button", name="Remove Two genres.wav").click()
    add_songs(page, songs[2])
    expect(page.locator("#status")).to_have_text("1 of 1 song classified.")
    expect(page.locator("#cards article")).to_have_count(1)


@pytest.mark.slow
@pytest.mark.parametrize("server_of", ["server", "tagger_server"])
def test_explanation_in_the_browser_is_that_of_the_server(
    browser: Browser, server_of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    require_runtime()
    server = request.getfixturevalue(server_of)
    soundfile.write(tmp_path / "music.wav", make_music(15), RATE)
    content = (tmp_path / "music.wav").read_bytes()
    prediction = server.post("/v1/predict?explain=true", content=content).json()
    arguments = [base64.b64encode(content).decode(), prediction["top_genre"]]
    with open_page(browser, str(server.base_url)) as page:
        in_browser = page.evaluate(EXPLAIN_IN_BROWSER, arguments)
    for key in ("weights", "times", "frequencies", "top_spans", "top_band"):
        np.testing.assert_allclose(in_browser[key], prediction["explanation"][key], atol=0.05)  # int8 rounding: 0.03


@pytest.mark.slow
def test_explanation_is_shown_and_played(page: Page, songs: list[Path]) -> None:
    add_songs(page, songs[1])
    button, requests = page.get_by_role("button", name="Why?"), []
    page.on("request", lambda request: requests.append(request.url))
    button.click(click_count=3)
    said = page.locator(".explanation p").first
    expect(said).to_contain_text("evidence for electronic", timeout=pages.TIMEOUT)
    expect(button).to_have_attribute("aria-expanded", "true")
    assert sum("explain" in url for url in requests) == 1
    start = re.search(r"at (\d+):(\d+)", said.text_content() or "")
    assert start
    page.get_by_role("button", name="Play these parts").click()
    expect(page.locator("#player-play")).to_have_text("Pause")
    seconds = 60 * int(start[1]) + int(start[2])
    expect(page.locator("#player-time")).to_have_text(re.compile("|".join(f"0:{seconds + i:02d} /" for i in range(3))))
    held: list[Any] = []
    page.route("**/v1/predict?*genre=rock", lambda route: held.append(route))  # a slow answer
    page.get_by_label("Why not").select_option("rock")
    page.get_by_label("Why not").select_option("jazz")
    expect(page.locator(".against")).to_contain_text("against jazz", timeout=pages.TIMEOUT)
    with page.expect_response("**/v1/predict?*genre=rock") as response:
        held[0].continue_()
    response.value.finished()
    page.wait_for_timeout(100)
    expect(page.locator(".against")).to_contain_text("against jazz")
    button.click()
    expect(page.locator(".explanation")).to_be_hidden()


@pytest.mark.slow
def test_timeline_shows_segments_and_seeks(page: Page, songs: list[Path]) -> None:
    add_songs(page, songs[0])
    segments = predictions(page)["Two genres.wav"]["segments"]
    assert [segment["top_genre"] for segment in (segments[0], segments[-1])] == ["electronic", "classical"]
    page.locator("#cards .track").click(position={"x": 5, "y": 40})
    scope, slider = page.locator("#scope"), page.get_by_role("slider", name="Position")
    between_waveform_and_names = 53 / 96
    colors = [pixel(scope, (i + 0.4) / len(segments), between_waveform_and_names) for i in range(len(segments))]
    assert colors[0] != colors[-1]
    box = scope.bounding_box()
    assert box
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 20)
    page.mouse.move(0, 0)
    expect(page.locator("#player-time")).to_have_text(re.compile(r"0:(36|37|38|39|40) / 0:48"))
    page.locator("#player-play").click()
    expect(page.locator("#player-play")).to_have_text("Play")
    assert pixel(scope, 0.1, 0.25) != pixel(scope, 0.99, 0.25)  # the played part is in color
    page.get_by_label("Zoom").fill("2")
    assert scope.evaluate("scope => scope.parentNode.scrollLeft") > 0.5 * box["width"]  # the playhead is in the middle
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#player-time")).to_have_text("0:00 / 0:48")
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^0:05, electronic"))
    page.locator("#cards h2").click()
    page.keyboard.press("Space")
    expect(page.locator("#player-play")).to_have_text("Pause")
    page.get_by_role("button", name="Spectrogram").click()
    expect(page.locator("#scope")).to_have_css("height", "230px")
    page.get_by_role("button", name="Close the player").click()
    expect(page.locator("#player")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save image").click()
    image = Image.open(download.value.path()).convert("RGB")
    card = page.locator("#cards article").bounding_box()
    assert card and image.width == round(card["width"]) and len(image.getcolors(2**20) or []) > 100


@pytest.mark.slow
def test_songs_that_the_browser_cannot_play_say_so(page: Page, songs: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd.au"
    soundfile.write(odd, make_music(5), RATE)
    add_songs(page, odd, songs[1])
    page.get_by_role("button", name="Play odd.au").click()
    for _ in range(2):
        expect(page.locator("#player-now")).to_contain_text("This browser can't play it")
        expect(page.locator("#player-play")).to_have_text("Play")
        page.locator("#player-play").click()
    page.get_by_role("button", name="Next song").click()
    expect(page.locator("#player-time")).to_have_text("0:01 / 0:24")
    expect(page.locator("#player-now")).to_contain_text("electronic")


@pytest.mark.slow
def test_unknown_and_too_large_files_say_why(page: Page, songs: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    soundfile.write(large, np.tile(make_music(60), 2), RATE)
    assert large.stat().st_size > pages.MAX_UPLOAD
    add_songs(page, songs[2], large)
    expect(page.locator("#cards .headline").first).to_contain_text("Closest to ")
    expect(page.locator("#cards .confidence").first).to_contain_text("unlike the training data; closest to ")
    expect(page.get_by_role("alert")).to_have_text("large.wav: larger than 5 MB, the server's limit")


@pytest.mark.slow
def test_songs_are_ordered_filtered_compared_and_removed(page: Page, songs: list[Path]) -> None:
    add_songs(page, *songs)
    names = page.locator("#cards h2")
    for order, first in (("name", "Broken"), ("most_confident", "Two genres"), ("disco", "Disco")):
        page.get_by_label("Order").select_option(order)
        expect(names.first).to_contain_text(first)
    page.get_by_label("Show").fill("noise")
    expect(page.locator("#cards article:visible")).to_have_count(1)
    page.get_by_label("Show").fill("")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#compare tbody th")).to_have_text(["Disco.wav", "Two genres.wav", "Noise.wav"])
    page.get_by_role("button", name="Cards").click()
    page.get_by_role("button", name="Remove Disco.wav").click()
    expect(names).to_have_count(3)
    expect(page.get_by_role("button", name="Remove Two genres.wav")).to_be_focused()
    page.get_by_role("button", name="Remove all").click()
    expect(names).to_have_count(0)
    expect(page.locator("#tools")).to_be_hidden()


@pytest.mark.slow
def test_songs_outlast_the_page_and_are_listed_once(page: Page, songs: list[Path]) -> None:
    add_songs(page, songs[1], songs[3])
    before = predictions(page)
    page.set_input_files("#files", songs[1])
    expect(page.locator("#status")).to_contain_text("1 file skipped (in the list already)")
    page.get_by_role("link", name="Model").click()
    page.get_by_role("link", name="Songs").click()
    expect(page.locator("#status")).to_have_text("1 of 2 songs classified, 1 failed.")
    assert predictions(page) == before
    page.get_by_role("button", name="Play Disco.wav").first.click()
    expect(page.get_by_role("button", name="Pause Disco.wav").first).to_be_visible()
    page.get_by_role("button", name="Try failed songs again").click()
    wait_until_done(page)
    expect(page.get_by_role("alert")).to_contain_text("not audio")
    page.get_by_role("button", name="Remove Disco.wav").click()
    page.reload()
    expect(page.locator("#cards h2")).to_have_text(["Broken.mp3"])
    page.route("**/v1/predict?*", lambda route: None)
    page.set_input_files("#files", songs[2])
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.locator("#cards h2").first.click()  # Chromium asks only after a gesture
    page.reload()
    assert asked == ["beforeunload"]


@pytest.mark.slow
def test_songs_that_fail_while_the_page_loads_are_listed_once(page: Page, songs: list[Path]) -> None:
    held: list[Any] = []
    expect(page.locator("#genre-chips li").first).to_be_attached()  # else the first load's request is held as well
    page.route("**/static/example.json", lambda route: held.append(route))
    page.reload()
    page.set_input_files("#files", songs[3])
    expect(page.locator("#status")).to_have_text("0 of 1 song classified, 1 failed.")
    page.wait_for_timeout(300)  # it is stored
    held[0].continue_()
    expect(page.locator("#genre-chips li").first).to_be_attached()
    page.wait_for_timeout(300)  # stored songs are listed
    expect(page.locator("#status")).to_have_text("0 of 1 song classified, 1 failed.")


@pytest.mark.slow
def test_songs_wait_for_a_server_that_is_away(browser: Browser, server: httpx.Client, songs: list[Path]) -> None:
    page = browser.new_page()  # requests fail here, so its console has errors
    page.goto(str(server.base_url))
    expect(page.locator("#by-probability option").first).to_be_attached()
    page.route("**/v1/**", lambda route: route.abort())
    page.set_input_files("#files", songs[1])
    expect(page.locator(".progress")).to_contain_text("Waiting for the server")
    expect(page.locator("progress:indeterminate")).to_be_visible()
    page.unroute("**/v1/**")
    expect(page.locator("#status")).to_have_text("1 of 1 song classified.", timeout=pages.TIMEOUT)
    page.close()


@pytest.mark.slow
def test_worker_that_dies_fails_one_song(browser: Browser, server: httpx.Client, songs: list[Path]) -> None:
    require_runtime()
    with open_page(browser, str(server.base_url)) as page:
        page.add_init_script(
            "window.workers = []; const Before = Worker; "
            "window.Worker = class extends Before { constructor(...all) { super(...all); workers.push(this); } };"
        )
        page.reload()
        switch_to_browser(page)
        page.set_input_files("#files", list(songs[:2]))
        page.evaluate("() => workers[0].terminate()")
        wait_until_done(page)
        expect(page.get_by_role("alert")).to_contain_text(re.compile("the browser stopped it|has stopped"))
        expect(page.locator("#status")).to_have_text("1 of 2 songs classified, 1 failed.")


@pytest.mark.slow
def test_folders_and_dropped_files_are_added(page: Page, songs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "album/inner").mkdir(parents=True)
    for name in ("one.wav", "inner/two.wav", "cover.jpg"):
        (tmp_path / "album" / name).write_bytes(songs[2].read_bytes())
    page.set_input_files("#folder", tmp_path / "album")
    expect(page.locator("#status")).to_have_text("2 of 2 songs classified, 1 file skipped (not audio).")
    dropped = page.evaluate_handle("""() => {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["not audio"], "dropped.wav"));
        return transfer;
    }""")
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    expect(page.locator("#drop")).to_have_class(re.compile("over"))
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    expect(page.locator("#drop")).not_to_have_class(re.compile("over"))
    expect(page.get_by_role("alert")).to_contain_text("dropped.wav: not audio", timeout=pages.TIMEOUT)


@pytest.mark.slow
def test_live_mode_predicts_what_the_microphone_plays(page: Page, songs: list[Path], server: httpx.Client) -> None:
    require_runtime()
    genre = re.compile(f"^{server.post('/v1/predict', content=songs[1].read_bytes()).json()['genre']}")  # "with some …"
    page.evaluate("() => { for (let i = 0; i < 3; i++) document.getElementById('listen').click(); }")  # impatient
    expect(page.locator("#live-genre")).to_have_text(genre, timeout=pages.TIMEOUT)
    expect(page.locator("#live-text")).to_contain_text("the last 10 seconds: ")
    expect(page.locator("#live-spoken")).to_have_text(genre, timeout=pages.TIMEOUT)
    assert page.locator("#level").evaluate("meter => meter.value") > -60
    page.get_by_role("button", name="Stop and keep").click()
    expect(page.locator("#cards h2")).to_have_text(re.compile("^Recording .*webm$"))  # one
    wait_until_done(page)
    expect(page.locator("#cards .headline")).to_have_text(genre)
    page.get_by_role("button", name="Listen", exact=True).click()
    page.get_by_role("button", name="Stop and discard").click()
    expect(page.locator("#cards h2")).to_have_count(1)
    expect(page.get_by_role("button", name="Listen", exact=True)).to_be_focused()


@pytest.mark.slow
def test_many_songs_are_a_list_with_tags_labels_and_shares(page: Page, songs: list[Path], tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen.id3")
    files = [tmp_path / f"{i}.mp3" for i in range(5)]
    samples, rate = soundfile.read(songs[1])
    for i, file in enumerate(files):
        soundfile.write(file, samples[: (8 + i) * rate], rate)
    tags = mutagen.ID3()
    tags.add(mutagen.TIT2(encoding=3, text="Title <b>"))
    tags.add(mutagen.TPE1(encoding=3, text="Ärtist"))
    tags.add(mutagen.APIC(mime="image/png", type=3, data=PNG))
    tags.save(files[0])
    add_songs(page, *files)
    row = page.locator("#cards article").first
    expect(row).to_have_class(re.compile("row"))
    expect(row.locator("h2")).to_have_text("Title <b>")
    expect(row.locator(".artist")).to_have_text("Ärtist")
    expect(row.locator(".cover")).to_be_visible()
    expect(row.locator(".result")).to_be_hidden()
    row.get_by_role("button", name="Details").click()
    row.get_by_label("Right genre").fill("synthwave")
    page.keyboard.press("Enter")
    assert {song["file"]: song.get("label") for song in predictions(page).values()}["0.mp3"] == "synthwave"
    page.locator("#shares button").first.click()
    expect(page.locator("#cards article:visible")).to_have_count(5)
    page.get_by_label("Show").fill("ärtist")
    expect(page.locator("#cards article:visible")).to_have_count(1)
    page.reload()
    expect(page.locator(".names h2")).to_have_text(["Title <b>", *(file.name for file in files[1:])])
    row.get_by_role("button", name="Details").click()
    expect(page.get_by_label("Right genre of 0.mp3")).to_have_value("synthwave")


def test_genres_that_change_places_keep_the_focus(page: Page, songs: list[Path], tmp_path: Path) -> None:
    def set_genre(route: Route) -> None:
        if route.request.method != "GET":
            return route.continue_()
        response = route.fetch()
        job = response.json()
        if job["state"] == "done":
            job["prediction"]["genre"] = re.split(r"[ .]", job["file"])[0]
        return route.fulfill(response=response, json=job)

    page.route("**/v1/jobs/*", set_genre)
    samples, rate = soundfile.read(songs[1])
    files = [tmp_path / f"{name}.wav" for name in ("jazz 1", "jazz 2", "pop 1", "pop 2", "rock", "pop 3")]
    for file in files:
        soundfile.write(file, samples[: 3 * rate], rate)
    add_songs(page, *files[:5])
    page.get_by_role("button", name="pop 2", exact=True).focus()
    add_songs(page, files[5])
    expect(page.locator("#shares button").first).to_have_text("pop 3")
    expect(page.get_by_role("button", name="pop 3", exact=True)).to_be_focused()


@pytest.mark.slow
def test_controls_name_their_songs_and_keep_the_focus(page: Page, songs: list[Path]) -> None:
    add_songs(page, songs[1], songs[3])
    why = page.get_by_role("button", name="Why? Disco.wav")
    why.press("Enter")
    expect(page.locator(".explanation [role=status]").first).to_contain_text("Strongest evidence for ")
    page.locator(".explanation canvas").wait_for()
    for control in page.locator("#cards article :is(button, input, select, summary):visible").all():
        expect(control).to_have_accessible_name(re.compile(r"Disco\.wav|Broken\.mp3"))
    page.get_by_role("button", name="Play these parts").press("Enter")
    page.set_viewport_size({"width": 1280, "height": 500})
    page.get_by_role("button", name="Remove Broken.mp3").focus()
    focused, player = (page.locator(selector).bounding_box() for selector in (":focus", "#player"))
    assert focused and player and focused["y"] + focused["height"] <= player["y"]  # it isn't behind the player
    page.get_by_label("Zoom").press("ArrowRight")
    expect(page.get_by_label("Zoom")).to_have_attribute("aria-valuetext", "2 times")
    page.get_by_role("slider", name="Position in Disco.wav").press("Escape")
    expect(page.locator("#player")).to_be_hidden()
    expect(page.get_by_role("button", name="Play Disco.wav")).to_be_focused()
    page.get_by_label("Why not").press("Escape")
    expect(page.locator(".explanation").last).to_be_hidden()
    expect(why).to_be_focused()
    page.get_by_role("button", name="Try failed songs again").press("Enter")
    expect(page.get_by_role("button", name="Remove all")).to_be_focused()
    wait_until_done(page)
    page.get_by_label("Right genre of Disco.wav").focus()
    page.evaluate("() => { const order = document.getElementById('order'); order.value = 'name'; "
                  "order.dispatchEvent(new Event('input')); }")  # fmt: skip
    expect(page.locator("#cards h2").first).to_have_text("Broken.mp3")
    expect(page.get_by_label("Right genre of Disco.wav")).to_be_focused()
    page.get_by_label("Show").fill("broken")
    expect(page.locator("#cards article:visible")).to_have_count(1)
    page.get_by_role("button", name="Remove Broken.mp3").press("Enter")
    expect(page.get_by_role("button", name="Choose songs")).to_be_focused()  # the other song is hidden
    expect(page.get_by_label("Show")).to_be_visible()  # so that it can be shown again


@pytest.mark.slow
def test_large_text_and_forced_colors_lose_nothing(page: Page, songs: list[Path]) -> None:
    add_songs(page, *songs)
    page.get_by_role("button", name="Why?").first.click()
    page.locator(".explanation canvas").wait_for()
    page.get_by_role("button", name="Play Disco.wav").click()
    page.set_viewport_size({"width": 320, "height": 700})
    page.evaluate(ENLARGE_TEXT)
    for view in ("Cards", "List"):
        page.get_by_role("button", name=view, exact=True).click()
        assert page.evaluate("() => document.documentElement.scrollWidth") == 320
    for name in ("Zoom", "Volume"):
        expect(page.get_by_role("slider", name=name)).to_be_visible()
    page.emulate_media(forced_colors="active")
    views = page.locator(".toggle button").evaluate_all(BACKGROUNDS)
    assert views[0] == views[2] != views[1]  # the list is shown
    [playhead] = page.locator("#scope").evaluate_all(BACKGROUNDS.replace("each)", "each, '::after')"))
    assert playhead != views[0]
    page.get_by_role("button", name="Cards").click()
    parts = page.locator(".stack i").evaluate_all(BACKGROUNDS)
    assert len(set(parts)) > 5
    for name in ("model", "api"):
        page.goto(urljoin(page.url, name))
        page.evaluate(ENLARGE_TEXT)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 320


@pytest.mark.slow
def test_listening_that_fails_says_why(browser: Browser, server: httpx.Client) -> None:
    with open_page(browser, str(server.base_url)) as page:
        page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('no device')); }")
        page.get_by_role("button", name="Listen", exact=True).press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Can't listen (no device)")
        expect(page.get_by_role("button", name="Listen", exact=True)).to_be_focused()
        page.evaluate("""() => {
            delete navigator.mediaDevices.getUserMedia;
            const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async options => window.stream = await open(options);
            MediaRecorder.prototype.start = () => { throw new Error("no recorder"); };
        }""")
        page.get_by_role("button", name="Listen", exact=True).press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Can't listen (no recorder)")
        page.wait_for_function("() => stream.getTracks().every(track => track.readyState === 'ended')")


@pytest.mark.slow
def test_similar_songs_of_the_library_are_on_the_card(
    browser: Browser, library_server: httpx.Client, songs: list[Path]
) -> None:
    with open_page(browser, str(library_server.base_url)) as page:
        add_songs(page, songs[1])
        page.get_by_role("button", name="Similar songs").click()
        similar = page.locator(".similar-songs li")
        expect(similar).to_have_count(2)  # the others of the library
        expect(similar.first).to_contain_text("Two genres.wav")


@pytest.mark.slow
def test_first_visit_shows_genres_and_an_example(page: Page, server: httpx.Client) -> None:
    expect(page.locator("#genre-chips li")).to_have_text(server.get("/v1/model").json()["genres"])
    expect(page.locator("#example .headline")).to_have_text("electronic")
    manifest = server.get("/static/manifest.webmanifest")
    assert manifest.headers["content-type"] == "application/manifest+json"
    assert server.get(f"/static/{manifest.json()['icons'][0]['src']}").status_code == 200


@pytest.mark.slow
def test_token_is_requested_once_by_the_browser(browser: Browser, songs: list[Path]) -> None:
    require_runtime()
    with running(token="secret") as client, open_page(browser, str(client.base_url), token="secret") as page:
        add_songs(page, songs[0])
        switch_to_browser(page)
        add_songs(page, songs[1])
        expect(page.locator("#status")).to_have_text("2 of 2 songs classified.")


@pytest.mark.slow
def test_nothing_is_uploaded_once_the_switch_is_on(page: Page, songs: list[Path]) -> None:
    require_runtime()
    add_songs(page, songs[1])
    held: list[Any] = []
    uploads: list[str] = []
    page.route("**/v1/predict?*", lambda route: held.append(route))  # a slow server
    copies = [songs[1].with_name(f"copy {i}.wav") for i in range(4)]
    for copy in copies:
        copy.write_bytes(songs[1].read_bytes())
    page.set_input_files("#files", list(copies))
    wait_for(lambda: len(held) == 3 or page.wait_for_timeout(20))
    page.on("request", lambda request: uploads.append(request.url) if "/v1/predict" in request.url else None)
    page.get_by_label("Classify in this browser").check()
    page.set_input_files("#files", songs[0])  # while the model is being loaded
    expect(page.locator("#in-browser-status")).to_contain_text("On:", timeout=pages.TIMEOUT)
    wait_until_done(page)
    expect(page.locator("#status")).to_have_text("6 of 6 songs classified.")
    page.get_by_role("button", name="Details").first.click()  # of a song that the server classified
    page.get_by_role("button", name="Why?").first.click()
    expect(page.locator(".explanation p").first).to_contain_text("Strongest evidence", timeout=pages.TIMEOUT)
    assert uploads == []


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["**/ort/ort.wasm.min.mjs", "**/v1/model/model.onnx"])
def test_switch_says_what_the_browser_lacks(browser: Browser, server: httpx.Client, missing: str) -> None:
    page = browser.new_page()  # requests fail here, so its console has errors
    page.route(missing, lambda route: route.fulfill(status=404))
    page.goto(str(server.base_url))
    switch = page.get_by_label("Classify in this browser")
    switch.click()
    expect(page.locator("#in-browser-status")).to_contain_text(re.compile("lacks onnxruntime-web|can't be run"))
    expect(switch).not_to_be_checked()
    page.close()


@pytest.mark.slow
def test_model_page_shows_all_metrics_of_the_card(browser: Browser) -> None:
    with running(model="gtzan") as server, open_page(browser, f"{server.base_url}/model") as page:
        card = server.get("/v1/model").json()
        test, cv = card["metrics"]["test"], card["metrics"]["cv"]
        for i, (name, metrics) in enumerate({"Test": test, "Cross-validation": cv}.items()):
            section, (low, high) = page.locator("section").nth(i), metrics["accuracy_ci95"]
            expect(section.locator("h2")).to_contain_text(f"{name}, split filtered ({metrics['n_tracks']} tracks by ")
            numbers = section.locator("dl")
            expect(numbers).to_contain_text(f"{metrics['accuracy']:.1%}95% CI by artist[{low:.1%}, {high:.1%}]")
            expect(numbers).to_contain_text(f"adaptive ECE{metrics['ece']:.3f}")
        cells = page.locator(".confusion td[title]").all_text_contents()
        assert [int(cell.replace("·", "0")) for cell in cells] == [n for row in cv["confusion_matrix"] for n in row]
        expect(page.locator(".reliability tbody tr")).to_have_count(len(cv["reliability_bins"]))
        expect(page.locator(".numbers tbody tr")).to_have_count(10)
        expect(page.locator("footer")).to_contain_text("accuracy 76.9% (test)")
    assert "has no metrics" in render_model(card, [])


def require_map() -> None:
    require((STATIC / "lib/twgl/version.txt").exists(), "needs d3 and twgl.js: python hatch_build.py")


@pytest.mark.slow
def test_library_is_searched_played_and_corrected(browser: Browser, library_server: httpx.Client) -> None:
    with open_page(browser, f"{library_server.base_url}/library") as page:
        items = page.locator("#songs li")
        expect(items).to_have_count(3)
        page.get_by_role("button", name="Play", exact=False).first.click()
        expect(page.locator("#audio")).to_have_js_property("error", None)
        page.locator("#playing-genre").fill("drone")
        page.keyboard.press("Enter")
        expect(page.locator("#corrected")).to_have_text("1 song has a manual label.")
        expect(items.first.locator("input")).to_have_value("drone")
        expect(items.first).to_contain_text("drone corrected")
        items.filter(has_not_text="drone").get_by_role("button", name="Confirm").first.click()
        expect(page.locator("#corrected")).to_have_text("2 songs have manual labels.")
        page.locator("summary").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the labels").click()
        assert "drone" in download.value.path().read_text()
        page.get_by_role("button", name="Songs similar to").first.press("Enter")
        expect(page.get_by_role("button", name="Clear: Similar to")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Search")).to_be_focused()
        page.get_by_label("Filter by genre").get_by_role("button", name="drone").click()
        expect(items).to_have_count(1)
        page.get_by_label("Search").fill("no such name")
        expect(page.locator("#total")).to_have_text("no such song")


@pytest.mark.slow
def test_songs_are_played_selected_and_labelled_on_the_map(browser: Browser, library_server: httpx.Client) -> None:
    require_map()
    with open_page(browser, f"{library_server.base_url}/library") as page:
        canvas, status = page.locator("#map[aria-label]"), page.locator("#total")
        box = canvas.bounding_box()
        header, columns = read_map(library_server.get("/v1/library/map").content)
        positions = columns["position"]
        row = int(positions[:, 1].argmax())
        song = library_server.get(f"/v1/library/songs/{row}").json()
        x, y = (0.5 + 0.475 * positions[row] * (1, -1)) * (box["width"], box["height"])
        canvas.click(position={"x": x, "y": y})
        expect(page.locator("#playing-name")).to_have_text(song["name"])
        canvas.hover(position={"x": x + 3, "y": y})
        expect(page.locator("#tip")).to_contain_text(song["name"])
        page.get_by_role("button", name="Lasso").click()
        page.evaluate("() => scrollTo(0, 0)")
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + x - 9, box["y"] + y - 9)
        page.mouse.down()
        for dx, dy in ((9, -9), (9, 9), (-9, 9)):
            page.mouse.move(box["x"] + x + dx, box["y"] + y + dy)
        page.mouse.up()
        expect(status).to_have_text("1 of 1 song")
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        assert download.value.path().read_text().splitlines()[2:] == [song["path"]]
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_label("Label all").fill("shoegaze")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(status).to_have_text("Saved: 1 song is shoegaze.")
        assert library_server.get(f"/v1/library/songs/{row}").json()["correction"] == "shoegaze"
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#songs li")).to_have_count(3)
        for color, names in (("confidence", 5), ("tag", len(header["tags"])), ("genre", 0)):
            page.get_by_label("Color").select_option(color)
            expect(page.locator("#legend li")).to_have_count(names)


@pytest.mark.slow
def test_covers_are_in_the_list_and_on_the_map(browser: Browser, songs: list[Path], tmp_path: Path) -> None:
    require_map()
    mutagen = pytest.importorskip("mutagen.id3")
    files = [tmp_path / "cover.mp3", tmp_path / "none.mp3"]
    for file in files:
        soundfile.write(file, *soundfile.read(songs[1]))
    tags = mutagen.ID3()
    tags.add(mutagen.APIC(mime="image/png", type=3, data=PNG))
    tags.save(files[0])
    rows = [f"{file},disco,disco,0.9,24,0.9,ok,{x},0" for x, file in enumerate(files)]
    table = tmp_path / "genres.csv"
    table.write_text("\n".join(["file,genre,top_genre,confidence,duration,prob_disco,status,map_x,map_y", *rows]))
    with running(library=table) as server, open_page(browser, f"{server.base_url}/library") as page:
        covers, tip, canvas = page.locator("#songs img"), page.locator("#tip"), page.locator("#map[aria-label]")
        expect(covers.first).to_have_js_property("naturalWidth", 1)
        expect(covers.last).to_be_hidden()
        box = canvas.bounding_box()
        for x, name in ((0.5, "cover.mp3"), (0.975, "none.mp3"), (0.5, "cover.mp3")):
            canvas.hover(position={"x": x * box["width"], "y": box["height"] / 2})
            expect(tip).to_contain_text(name)
            expect(tip.locator("img")).to_be_visible(visible=name == "cover.mp3")
            assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        page.get_by_label("Search").fill("mp3")
        expect(page.locator("#total")).to_have_text("2 of 2 songs")
        expect(covers.last).to_be_hidden()


@pytest.mark.slow
def test_new_songs_are_shown_without_a_reload(browser: Browser, songs: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "genres.csv"
    main_of("library", str(songs[0]), "--out", str(table), "--model", "gtzan")
    with running(library=table) as server, open_page(browser, f"{server.base_url}/library") as page:
        expect(page.locator("#songs li")).to_have_count(1)
        main_of("library", *map(str, songs[:3]), "--out", str(table), "--model", "gtzan")
        expect(page.locator("#songs li")).to_have_count(3)
        expect(page.locator("#about")).to_contain_text("3 songs")


@pytest.mark.slow
@pytest.mark.parametrize("size", pages.SIZES)
def test_tags_are_written_after_a_dry_run_and_undone(
    browser: Browser, songs: list[Path], tmp_path: Path, size: str
) -> None:
    table, names = tmp_path / "genres.csv", ["Disco.wav", "Noise.wav"]
    files = [Path(shutil.copy(songs[0].with_name(name), tmp_path)) for name in names]
    before = [file.read_bytes() for file in files]
    rows = [f"{files[0]},disco,disco,0.9,24,0.9,ok", f"{files[1]},unknown,disco,0.3,12,0.3,ok"]
    table.write_text("\n".join(["file,genre,top_genre,confidence,duration,prob_disco,status", *rows]))
    with (
        running(library=table, write_tags=True) as server,
        open_page(browser, f"{server.base_url}/library", size=size) as page,
    ):
        status, listed = page.locator("#tags-status"), page.locator("#tags-files li")
        page.get_by_role("button", name="Write tags").click()
        expect(status).to_have_text("1 file would be changed, 1 skipped.")
        expect(listed.first).to_have_text(f"{files[0]}none → Disco")
        expect(listed.last).to_contain_text("unknown (closest to disco, 30%)")
        assert [file.read_bytes() for file in files] == before
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        page.screenshot(path=Path(tempfile.gettempdir()) / f"musicclass-screenshots/write-tags-light-{size}.png")
        page.get_by_role("button", name="Write 1 file").click()
        expect(status).to_have_text("1 file changed, 1 skipped.")
        assert read_genres(str(files[0])) == ("Disco",)
        page.get_by_label("Files that have a genre").select_option("append")
        expect(status).to_have_text("0 files would be changed, 2 skipped.")
        page.get_by_role("button", name="Undo the last writing").click()
        expect(status).to_have_text("1 file restored.")
        assert [file.read_bytes() for file in files] == before
        expect(page.get_by_role("button", name="Close")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#tags")).to_be_hidden()


@pytest.mark.slow
def test_without_a_map_all_songs_are_listed(browser: Browser, library_server: httpx.Client) -> None:
    page = browser.new_page()
    page.route("**/twgl*", lambda route: route.abort())
    page.goto(f"{library_server.base_url}/library")
    expect(page.locator("#songs li")).to_have_count(3)
    expect(page.locator("#map-about")).to_contain_text("No map")
    expect(page.locator("#map")).to_be_hidden()
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(("color_scheme", "size"), pages.VIEWS)
def test_reports_work_offline_and_are_accessible(
    browser: Browser, tmp_path: Path, color_scheme: Any, size: str
) -> None:
    jazz = {"file": "<b>.mp3", "genre": "jazz", "confidence": 0.999, "duration": 65.0, "status": "ok", "tags": "mellow"}
    unknown = jazz | {"file": "b.mp3", "genre": "unknown", "confidence": 0.3}
    failed = {"file": "c.mp3", "genre": None, "confidence": None, "duration": None, "status": "crashed", "error": "bad"}
    rows = [jazz, unknown, failed]
    library = html_report(rows, Counter(["jazz", "unknown"]), Counter(["crashed"]), ["jazz"], "mine")
    (tmp_path / "library.html").write_text(library, encoding="utf-8")
    assert main_of("evaluate", "gtzan", "--report", str(tmp_path / "evaluation.html")) == 0
    for name in ("library", "evaluation"):
        with open_page(browser, f"file://{tmp_path}/{name}.html", color_scheme, size) as page:
            results = Axe().run(page)
            assert results.violations_count == 0, results.generate_report()
            assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
            if name == "library":
                files = page.locator("#files tbody th")
                expect(files).to_have_text(["b.mp3", "<b>.mp3", "c.mp3bad"])
                page.get_by_role("button", name="File").click()
                expect(files.first).to_have_text("<b>.mp3")
                expect(page.locator("#files tbody tr").first).to_have_text("<b>.mp3 jazz mellow >99%1:05")
                page.get_by_role("button", name="failed").click()
                expect(files).to_have_text(["c.mp3bad"])
                page.get_by_role("button", name="all").click()
                page.get_by_label("Search").fill("MELLOW unknown")
                expect(page.locator("#shown")).to_have_text("1 file")


@pytest.mark.slow
@pytest.mark.parametrize("name", pages.STATES)
@pytest.mark.parametrize(("color_scheme", "size"), pages.VIEWS)
def test_every_state_is_accessible_and_fits_the_screen(
    browser: Browser, library_server: httpx.Client, songs: list[Path], name: str, color_scheme: Any, size: str
) -> None:
    """Leaves a screenshot of each state in the temporary folder's musicclass-screenshots, to be looked at."""
    path, reach = pages.STATES[name]
    with open_page(browser, f"{library_server.base_url}{path}", color_scheme, size) as page:
        reach(page, songs)
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        page.wait_for_timeout(300)
        folder = Path(tempfile.gettempdir()) / "musicclass-screenshots"
        page.screenshot(path=folder / f"{name}-{color_scheme}-{size}.png", full_page=True)
