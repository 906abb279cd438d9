"""The page in headless Chromium: the browser, what must not happen in it, and all that the page can look like."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soundfile
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.conftest import RATE, make_music, make_noise

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCHEMES = ("light", "dark")
SIZES = {"phone": (390, 844), "wide": (1280, 800)}
PICTURE_WIDTH = 160  # of stored screenshots
MOST = 60_000  # ms to wait for anything
MAX_BODY = 4_000_000


def chromium() -> str | None:
    """Where the browser is, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A headless browser with a microphone that beeps."""
    with sync_playwright() as playwright:
        fakes = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        plain = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--hide-scrollbars"]
        quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*fakes, *plain, *quiet])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser,
    url: str,
    scheme: str = "light",
    size: str = "wide",
    token: str | None = None,
    answers: dict[str, Any] | None = None,
) -> Iterator[Page]:
    """A page in a window of its own; fails at the end for errors in it, and for requests to anyone else.

    `answers`: addresses (patterns), and the JSON that is answered there in place of the server.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
        accept_downloads=True,
        http_credentials={"username": "anyone", "password": token} if token else None,
    )
    context.set_default_timeout(MOST)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}") if said.type == "error" else None)

    def look(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("blob", "data") and parts.netloc != urlsplit(url).netloc:
            wrong.append(f"asks someone else: {address}")

    page.on("request", lambda request: look(request.url))
    for address, answer in (answers or {}).items():
        page.route(address, partial(_fulfil, answer))
    try:
        page.goto(url)
        yield page
        assert not wrong, "\n".join(wrong)
    finally:
        context.close()


def _fulfil(answer: Any, route: Route) -> None:
    route.fulfill(json=answer)


def add(page: Page, *files: Path) -> None:
    """Choose files, and wait until each has been heard."""
    before = page.locator("article").count()
    page.set_input_files("#files", list(files))
    expect(page.locator("article")).to_have_count(before + len(files))
    heard(page)


def heard(page: Page) -> None:
    """Wait until nothing is being heard."""
    expect(page.locator(".progress:visible")).to_have_count(0, timeout=MOST)


def listen_here(page: Page) -> None:
    """Switch to listening in the browser alone."""
    page.get_by_label("Nothing leaves this computer").check()
    expect(page.locator("#local-state")).to_contain_text("On:", timeout=MOST)


def made_songs(folder: Path) -> list[Path]:
    """Music of two parts, noise, and a file that is no music."""
    # a faint hiss, as records have: music without any is unlike all that the model knows
    parts = {"Two parts": make_music() + 0.07 * pink(24), "Noise": make_noise(12)}
    for name, samples in parts.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    (folder / "Broken.mp3").write_bytes(b"this is no music" * 100)
    return [folder / name for name in ("Two parts.wav", "Noise.wav", "Broken.mp3")]


def pink(seconds: float) -> np.ndarray:
    """Pink noise, 1 at its loudest."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(int(seconds * RATE)))
    sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), int(seconds * RATE))
    return (sound / np.abs(sound).max()).astype(np.float32)


@dataclass(frozen=True)
class State:
    """One thing that a page can look like."""

    path: str
    reach: Callable[[Page, list[Path]], None]


def _cards(page: Page, songs: list[Path]) -> None:
    add(page, *songs)
    expect(page.locator("#count")).to_contain_text("2 of 3 heard")
    page.get_by_label("Order").select_option("genre")  # and no word on which came last
    expect(page.locator("#count")).to_have_text("2 of 3 heard, 1 can't be used.")


def _busy(page: Page, songs: list[Path]) -> None:
    page.route("**/v1/predict?*", lambda route: None)  # never answered
    page.set_input_files("#files", list(songs) * 2)
    expect(page.locator(".progress:visible")).to_have_count(2 * len(songs))


def _recording(page: Page, songs: list[Path]) -> None:
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#record")).to_contain_text("Stop (0:0")


def _why(page: Page, songs: list[Path]) -> None:
    add(page, songs[0])
    page.get_by_role("button", name="Why?").click()
    page.locator(".because canvas").wait_for()


def _compare(page: Page, songs: list[Path]) -> None:
    add(page, *songs)
    page.get_by_role("button", name="Compare").click()


def _here(page: Page, songs: list[Path]) -> None:
    listen_here(page)
    add(page, songs[0])


def _drawn(page: Page, songs: list[Path]) -> None:
    page.locator("#all, #confusion table").first.wait_for()
    page.wait_for_load_state("networkidle")


def _heard_from_the_map(page: Page, songs: list[Path]) -> None:
    _drawn(page, songs)
    page.get_by_role("button", name="Play").first.click()
    page.locator("#audio").evaluate("audio => { audio.pause(); audio.currentTime = 0; }")


STATES = {
    "start": State("/", lambda page, songs: None),
    "busy": State("/", _busy),
    "recording": State("/", _recording),
    "cards": State("/", _cards),
    "why": State("/", _why),
    "compare": State("/", _compare),
    "here": State("/", _here),
    "model": State("/model", _drawn),
    "library": State("/library", _heard_from_the_map),
}


def screenshot(page: Page) -> bytes:
    """All of the page as a PNG, when everything has been drawn."""
    page.wait_for_timeout(300)
    return page.screenshot(full_page=True)


def small(picture: bytes) -> bytes:
    """A screenshot as it is stored: a small WebP."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    height = round(image.height * PICTURE_WIDTH / image.width)
    out = io.BytesIO()
    image.resize((PICTURE_WIDTH, height), Image.Resampling.BOX).save(out, "WEBP", quality=80)
    return out.getvalue()


def difference(one: bytes, other: bytes) -> float:
    """How far two small pictures are from each other, 0 to 1: the mean over blurred pixels, of all that either has."""
    from PIL import Image, ImageFilter

    images = [Image.open(io.BytesIO(data)).convert("RGB").filter(ImageFilter.BoxBlur(2)) for data in (one, other)]
    height = max(image.height for image in images)
    arrays = []
    for image in images:
        canvas = Image.new("RGB", (PICTURE_WIDTH, height), (255, 0, 255))  # what one lacks counts as wrong
        canvas.paste(image)
        arrays.append(np.asarray(canvas, np.float64))
    return float(np.abs(arrays[0] - arrays[1]).mean() / 255)
