"""The page as people use it, in headless Chromium. Stored screenshots come from: python -m tests.golden.screenshots"""

from __future__ import annotations

import base64
import csv
import itertools
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from musicclass.classifier import Classifier
from musicclass.web.app import STATIC
from tests.conftest import RATE, SHARED, make_music, make_noise
from tests.pages import (
    MAX_BODY,
    MOST,
    SCHEMES,
    SIZES,
    STATES,
    add,
    browsing,
    chromium,
    difference,
    heard,
    listen_here,
    made_songs,
    opened,
    screenshot,
    small,
)
from tests.serving import main_of, running, wait_for

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt install chromium")
needs_runtime = pytest.mark.skipif(
    not (STATIC / "ort/version.txt").exists(), reason="needs onnxruntime-web: python hatch_build.py, with npm"
)
CLIPS = SHARED / "gtzan/genres_original"
needs_clips = pytest.mark.skipif(not CLIPS.exists(), reason="needs GTZAN clips in ../shared/data")
STORED = Path(__file__).parent / "golden/screenshots"
LOOSE = 0.02  # other fonts and versions move some pixels; a lost panel, or black on black, is far more


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return made_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="module")
def server(songs: list[Path]) -> Iterator[httpx.Client]:
    table = songs[0].parent / "genres.csv"
    main_of("library", str(songs[0].parent), "--out", str(table))
    with running(max_body=MAX_BODY, library=table) as client:
        yield client


@pytest.fixture
def page(browser: Browser, server: httpx.Client) -> Iterator[Page]:
    with opened(browser, str(server.base_url)) as found:
        yield found


def clips(step: int = 1) -> list[Path]:
    return sorted(CLIPS.glob("*/*.flac"))[::step]


def exported(page: Page, kind: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=kind, exact=True).click()
    assert download.value.suggested_filename == f"genres.{kind.lower()}"
    return download.value.path().read_bytes().decode()


@needs_clips
def test_two_real_songs(page: Page, classifier: Classifier) -> None:
    one, other = clips(40)[:2]
    page.set_input_files("#files", [one, other])
    expect(page.locator("progress").first).to_be_visible()
    expect(page.locator(".progress span").first).to_have_text(re.compile("Waiting|Sending|Listening"))
    heard(page)
    expect(page.locator("#count")).to_contain_text("2 of 2 heard")
    for path in (one, other):
        card = page.locator("article", has_text=path.name)
        told = classifier.predict(path)
        expect(card.locator(".verdict")).to_contain_text(told.genre)
        expect(card.locator(".reason")).to_contain_text(f"{round(100 * told.confidence)}% sure")
        first = next(iter(told.probabilities))
        expect(card.locator(".bars li").first).to_contain_text(first)
        expect(card.locator(".bars li")).to_have_count(10)
        colours = {segment.genre for segment in told.segments}
        expect(card.locator(".legend li")).to_have_count(len(colours))


def pixel(page: Page, selector: str, across: float) -> list[int]:
    """The colour in a canvas's middle row."""
    return page.locator(selector).first.evaluate(
        """(canvas, across) => [...canvas.getContext("2d").getImageData(
            Math.floor(across * canvas.width), Math.floor(canvas.height / 2), 1, 1).data]""",
        across,
    )


def playhead(page: Page, selector: str) -> float:
    """Where the first column of ink stands in a canvas's topmost row, as a share of its width."""
    return page.locator(selector).first.evaluate(
        """canvas => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, 1);
            for (let x = 0; x < canvas.width; x++)
                if (data.slice(4 * x, 4 * x + 3).join() === "29,31,36") return x / canvas.width;
            return -1;
        }"""
    )


def test_the_time_line_shows_its_parts_and_a_click_goes_there(page: Page, songs: list[Path]) -> None:
    add(page, songs[0])
    answer = json.loads(exported(page, "JSON"))[0]
    genres = [segment["genre"] for segment in answer["segments"]]
    assert genres[-1] == "classical" != genres[0]  # a groove, then chords
    before = [pixel(page, ".line", (i + 0.5) / len(genres)) for i in range(len(genres))]
    assert len({str(colour) for colour in before}) > 1
    strip = page.locator(".strip")
    box = strip.bounding_box()
    assert box
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 30)
    page.mouse.move(0, 0)
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator(".time")).to_have_text(re.compile(r"0:(18|19|20|21|22) / 0:24"))
    page.get_by_role("button", name="Pause").click()
    at = page.locator(".strip input").evaluate("input => Number(input.value)")
    assert 17.5 < at < 23
    assert playhead(page, ".wave") == playhead(page, ".line") == pytest.approx(at / 24, abs=0.01)
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".time")).to_have_text("0:00 / 0:24")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^0:00, "))


def test_why(page: Page, songs: list[Path]) -> None:
    add(page, songs[0])
    button = page.get_by_role("button", name="Why?")
    button.click()
    expect(page.locator(".because p").first).to_contain_text("rests most on", timeout=MOST)
    expect(button).to_have_attribute("aria-expanded", "true")
    most = page.get_by_role("button", name="Play what mattered most")
    start = re.search(r"\((\d+):(\d+)", most.text_content() or "")
    assert start
    most.click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    seconds = 60 * int(start[1]) + int(start[2])
    shown = [f"0:{seconds + more:02d} / 0:24" for more in range(3)]
    expect(page.locator(".time")).to_have_text(re.compile("|".join(shown)))
    button.click()
    expect(page.locator(".because")).to_be_hidden()


def test_unknown_broken_and_too_large(page: Page, songs: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    soundfile.write(large, np.tile(make_music(60), 2), RATE, subtype="PCM_16")
    assert large.stat().st_size > MAX_BODY
    add(page, *songs[1:], large)
    noise = page.locator("article", has_text="Noise.wav")
    expect(noise.locator(".verdict")).to_have_text("Can't say")
    expect(noise.locator(".reason")).to_contain_text("unlike the music this model knows; best guess")
    expect(page.locator("article", has_text="Broken.mp3").get_by_role("alert")).to_contain_text("not audio")
    expect(page.locator("article", has_text="large.wav").get_by_role("alert")).to_contain_text("larger than 4 MB")
    expect(page.locator("#count")).to_contain_text("1 of 3 heard, 2 can't be used")


def test_export(page: Page, songs: list[Path], server: httpx.Client) -> None:
    trap = songs[0].with_name('=1+1,"x".wav')
    trap.write_bytes(songs[1].read_bytes())
    add(page, *songs, trap)
    rows = list(csv.DictReader(exported(page, "CSV").splitlines()))
    assert {row["file"] for row in rows} == {*(song.name for song in songs), f"'{trap.name}"}
    told = {row["file"]: row for row in rows}
    answer = server.post("/v1/predict", content=songs[0].read_bytes()).json()
    row = told[songs[0].name]
    assert (row["genre"], row["best_guess"]) == (answer["genre"], answer["best_guess"])
    for genre, share in answer["probabilities"].items():
        assert float(row[genre]) == pytest.approx(share, abs=1e-6)
    assert "not audio" in told["Broken.mp3"]["error"]
    whole = {song["file"]: song for song in json.loads(exported(page, "JSON"))}
    assert whole[songs[0].name]["segments"] == answer["segments"]
    card = page.locator("article", has_text=songs[0].name)
    with page.expect_download() as download:
        card.get_by_role("button", name="Save picture").click()
    assert download.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_many_are_compared_ordered_and_filtered(page: Page, songs: list[Path]) -> None:
    add(page, *songs)
    page.get_by_label("Order").select_option("name")
    expect(page.locator("article h2")).to_have_text(["Broken.mp3", "Noise.wav", "Two parts.wav"])
    for order, names in (
        ("genre", ["Two parts.wav", "Noise.wav", "Broken.mp3"]),
        ("unsure", ["Noise.wav", "Two parts.wav", "Broken.mp3"]),
    ):
        page.get_by_label("Order").select_option(order)
        expect(page.locator("article h2")).to_have_text(names)
    page.get_by_label("Show").fill("noise")
    expect(page.locator("article:visible")).to_have_count(1)
    page.get_by_label("Show").fill("")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#compare tbody tr")).to_have_count(2)
    sure = page.locator("#compare th", has_text="Sure")
    sure.get_by_role("button").click()
    expect(sure).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#compare tbody th").first).to_have_text("Two parts.wav")
    page.get_by_role("button", name="Cards").click()
    page.get_by_role("button", name="Remove Noise.wav").click()
    expect(page.locator("article")).to_have_count(2)
    expect(page.get_by_role("button", name="Remove Two parts.wav")).to_be_focused()
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("article")).to_have_count(0)
    expect(page.locator("#tools")).to_be_hidden()


def test_a_folder_and_a_drop(page: Page, songs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "album/inner").mkdir(parents=True)
    for name in ("one.wav", "inner/two.wav"):
        (tmp_path / "album" / name).write_bytes(songs[1].read_bytes())
    (tmp_path / "album/cover.jpg").write_bytes(b"no sound")
    page.set_input_files("#folder", tmp_path / "album")
    expect(page.locator("article")).to_have_count(2)
    heard(page)
    dropped = page.evaluate_handle(
        """data => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.wav"));
            return transfer;
        }""",
        base64.b64encode(songs[1].read_bytes()).decode(),
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": dropped})
    expect(page.locator("#drop")).to_have_class(re.compile("over"))
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    expect(page.locator("#drop")).not_to_have_class(re.compile("over"))
    expect(page.locator("article", has_text="dropped.wav").locator(".verdict")).to_be_visible(timeout=MOST)


def test_microphone(page: Page) -> None:
    button = page.get_by_role("button", name="Record", exact=True)
    page.evaluate("""() => {
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.asked = 0;
        navigator.mediaDevices.getUserMedia = what => { window.asked += 1; return ask(what); };
    }""")
    page.evaluate("() => { for (let i = 0; i < 3; i++) document.getElementById('record').click(); }")  # impatient
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    assert page.evaluate("() => window.asked") == 1
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article h2")).to_have_text(re.compile("Recording .*webm"))
    heard(page)
    expect(page.locator(".verdict")).to_have_text("Can't say")  # the device beeps
    expect(button).to_be_visible()


@needs_runtime
def test_with_a_token_the_browser_asks_for_it_once(browser: Browser, songs: list[Path]) -> None:
    with (
        running(token="a word", workers=1) as client,
        opened(browser, str(client.base_url), token="a word") as page,
    ):
        add(page, songs[0])
        listen_here(page)
        add(page, songs[0])
        told = page.locator(".verdict").all_text_contents()
        assert told[0] == told[1]


@needs_runtime
@needs_clips
def test_in_the_browser_alone_all_real_clips_get_the_same_answers(page: Page) -> None:
    add(page, *clips())
    there = json.loads(exported(page, "JSON"))
    page.get_by_role("button", name="Remove all").click()
    listen_here(page)
    page.context.set_offline(True)
    add(page, *clips())
    here = {song["file"]: song for song in json.loads(exported(page, "JSON"))}
    assert len(there) == len(here) == 74
    for song in there:
        assert_same(here[song["file"]], song)


def assert_same(here: dict, there: dict) -> None:
    assert (here["genre"], here["best_guess"]) == (there["genre"], there["best_guess"])
    assert here["confidence"] == pytest.approx(there["confidence"], abs=0.02)
    assert here["familiarity"] == pytest.approx(there["familiarity"], abs=0.02)
    for genre, share in there["probabilities"].items():
        assert here["probabilities"][genre] == pytest.approx(share, abs=0.02)
    assert [part["genre"] for part in here["segments"]] == [part["genre"] for part in there["segments"]]
    assert here["duration"] == pytest.approx(there["duration"], abs=0.02)


@needs_runtime
def test_in_the_browser_alone_other_formats_and_reasons(page: Page, songs: list[Path], tmp_path: Path) -> None:
    music, noise = np.stack([make_music(15, 44_100), make_noise(15, 44_100)], 1), make_noise(3, 48_000)
    files = [*songs, tmp_path / "stereo.ogg", tmp_path / "short.wav", tmp_path / "silent.flac", tmp_path / "fast.mp3"]
    soundfile.write(files[3], music, 44_100)
    soundfile.write(files[4], make_noise(0.5), RATE)
    soundfile.write(files[5], np.zeros(3 * RATE), RATE)
    soundfile.write(files[6], noise, 48_000)
    add(page, *files)
    there = {song["file"]: song for song in json.loads(exported(page, "JSON"))}
    page.get_by_role("button", name="Remove all").click()
    listen_here(page)
    page.context.set_offline(True)
    add(page, *files)
    here = {song["file"]: song for song in json.loads(exported(page, "JSON"))}
    for name, song in there.items():
        assert ("error" in here[name]) == ("error" in song), name
        if "error" not in song:
            assert_same(here[name], song)
    assert "at least 1 s" in here["short.wav"]["error"]
    assert "silence" in here["silent.flac"]["error"]
    assert "format" in here["Broken.mp3"]["error"]


@needs_runtime
def test_in_the_browser_alone_the_reasons_are_the_same(page: Page, songs: list[Path], server: httpx.Client) -> None:
    there = server.post("/v1/predict?explain=true", content=songs[0].read_bytes()).json()["explanation"]
    listen_here(page)
    page.context.set_offline(True)
    add(page, songs[0])
    page.get_by_role("button", name="Why?").click()
    words = page.locator(".because p").first
    expect(words).to_contain_text("rests most on", timeout=MOST)
    assert (words.text_content() or "").lower() == f"{there['words'].lower()}."


@needs_runtime
def test_nothing_leaves_once_the_switch_is_on(page: Page, songs: list[Path], classifier: Classifier) -> None:
    add(page, songs[0])
    held, sent = [], []
    page.route("**/v1/predict?*", lambda route: held.append(route))  # as of a server that is slow
    page.set_input_files("#files", songs[:2] * 3)
    expect(page.locator("article")).to_have_count(7)
    wait_for(lambda: len(held) == 3 or page.wait_for_timeout(20))
    page.on("request", lambda request: sent.append(request.url) if "/v1/predict" in request.url else None)
    page.get_by_label("Nothing leaves this computer").check()
    page.set_input_files("#files", songs[0])  # while the model is being loaded
    expect(page.locator("#local-state")).to_contain_text("On:", timeout=MOST)
    heard(page)
    expect(page.locator("#count")).to_contain_text("8 of 8 heard")
    page.locator("article").first.get_by_role("button", name="Why?").click()  # of a song that the server heard
    expect(page.locator(".because p").first).to_contain_text("rests most on", timeout=MOST)
    assert sent == []


@needs_runtime
def test_a_song_that_is_removed_while_it_is_heard_leaves_nothing(page: Page, songs: list[Path]) -> None:
    listen_here(page)
    page.set_input_files("#files", songs[0])
    expect(page.locator(".progress span")).to_have_text("Listening")
    page.get_by_role("button", name="Remove Two parts.wav").click()
    add(page, songs[1])
    expect(page.locator("#count")).to_contain_text("1 of 1 heard")
    expect(page.locator("article")).to_have_count(1)


def test_without_what_the_browser_needs_it_says_so(browser: Browser, server: httpx.Client) -> None:
    context = browser.new_context()  # requests fail here, so its console isn't clean
    page = context.new_page()
    page.route("**/ort/ort.wasm.min.mjs", lambda route: route.fulfill(status=404))
    page.goto(str(server.base_url))
    switch = page.get_by_label("Nothing leaves this computer")
    switch.click()
    expect(page.locator("#local-state")).to_contain_text("This server came without what browsers need")
    expect(switch).not_to_be_checked()
    page.unroute("**/ort/ort.wasm.min.mjs")
    page.route("**/v1/model/network", lambda route: route.fulfill(status=500))
    switch.click()
    expect(page.locator("#local-state")).not_to_contain_text(re.compile("Loading|came without"), timeout=MOST)
    expect(switch).not_to_be_checked()
    context.close()


def test_the_model_in_figures(browser: Browser, server: httpx.Client) -> None:
    card = server.get("/v1/model").json()
    with opened(browser, f"{server.base_url}/model") as page:
        cells = page.locator("#confusion td button")
        expect(cells).to_have_count(100)
        counts = card["metrics"]["folds"]["confusion"]
        cells.nth(1 * 10 + 1).click()
        right, tracks = counts[1][1], sum(counts[1])
        words = f"Of {tracks} classical tracks, {right} were told as classical ({right / tracks:.0%})."
        expect(page.locator("#told-cell")).to_have_text(words)
        page.keyboard.press("ArrowRight")
        expect(page.locator("#told-cell")).to_contain_text("told as country")
        assert [cell.replace("·", "0") for cell in cells.all_text_contents()] == [str(n) for row in counts for n in row]
        expect(page.locator("#reliability circle")).to_have_count(15)
        expect(page.locator("#bins tbody tr")).to_have_count(15)
        expect(page.locator("#numbers")).to_contain_text(f"{100 * card['metrics']['folds']['accuracy']:.1f}%")
    judged = {"folds": card["metrics"]["folds"], "test": card["metrics"]["folds"] | {"accuracy": 0.123}}
    answers = {"**/v1/model": card | {"metrics": judged}}
    with opened(browser, f"{server.base_url}/model", answers=answers) as page:
        expect(page.locator("#numbers")).to_contain_text("12.3%")
        page.get_by_label("Judged").select_option("folds")
        expect(page.locator("#numbers")).to_contain_text(f"{100 * card['metrics']['folds']['accuracy']:.1f}%")


def test_a_library_is_looked_at_heard_and_corrected(browser: Browser, server: httpx.Client) -> None:
    with opened(browser, f"{server.base_url}/library") as page:
        expect(page.locator("#about")).to_contain_text("songs in genres.csv")
        rows = page.locator("#songs tbody tr")
        count = server.get("/v1/library").json()["songs"]
        expect(rows).to_have_count(count)
        place = server.get("/v1/library/map").json()
        box = page.locator("#map").bounding_box()
        assert box
        i = max(range(count), key=place["x"].__getitem__)  # at the right edge
        low, high = min(place["y"]), max(place["y"])
        y = box["height"] - 14 - (place["y"][i] - low) / ((high - low) or 1) * (box["height"] - 28)
        page.mouse.move(box["x"] + box["width"] - 14, box["y"] + y)
        expect(page.locator("#tip")).to_contain_text(place["names"][i])
        page.mouse.down()
        page.mouse.up()
        expect(page.locator("#playing-name")).to_have_text(place["names"][i])
        expect(page.locator("#audio")).to_have_js_property("error", None)
        page.locator("#playing-genre").fill("drone")
        page.keyboard.press("Enter")
        expect(page.locator("#corrected")).to_have_text("1 song has a genre by hand.")
        other = page.locator("#songs tbody tr").filter(has_not=page.locator(f'[data-row="{place["rows"][i]}"]')).first
        other.get_by_role("button", name="Right").click()
        expect(page.locator("#corrected")).to_have_text("2 songs have a genre by hand.")
        expect(page.locator(f'#songs [data-row="{place["rows"][i]}"]')).to_have_value("drone")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the labels").click()
        assert "drone" in download.value.path().read_text()
        page.get_by_label("Find").fill("nothing has this name")
        expect(page.locator("#total")).to_have_text("no such song")
    for row in range(count):
        server.delete(f"/v1/library/songs/{row}/correction")


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_state_is_accessible_and_looks_as_it_did(
    browser: Browser, server: httpx.Client, songs: list[Path], name: str, scheme: str, size: str
) -> None:
    if name == "here" and not (STATIC / "ort/version.txt").exists():
        pytest.skip("needs onnxruntime-web: python hatch_build.py, with npm")
    state = STATES[name]
    with opened(browser, f"{server.base_url}{state.path}", scheme, size) as page:
        state.reach(page, songs)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0  # nothing sticks out
        picture = screenshot(page)
    kept = Path(tempfile.gettempdir()) / "musicclass-screenshots" / f"{name}-{scheme}-{size}.png"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(picture)
    gap = difference(small(picture), (STORED / f"{name}-{scheme}-{size}.webp").read_bytes())
    assert gap < LOOSE, f"{gap:.3f} from what is stored; look at {kept}"


def test_screenshots_of_different_states_count_as_different() -> None:
    stored = {path.stem: path.read_bytes() for path in STORED.glob("*.webp")}
    assert len(stored) == len(STATES) * len(SCHEMES) * len(SIZES)
    # but for a button, recording is start
    stored = {name: data for name, data in stored.items() if not name.startswith("recording")}
    for one, other in itertools.combinations(stored, 2):
        assert difference(stored[one], stored[other]) > LOOSE, (one, other)
