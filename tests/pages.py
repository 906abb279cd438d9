"""The web UI in headless Chromium: how pages are opened, songs added, and each state reached."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from musicclass.server.app import STATIC
from tests.conftest import RATE, make_noise, script

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES: dict[str, ViewportSize] = {
    "phone": {"width": 390, "height": 844}, "wide": {"width": 1280, "height": 800},
}  # fmt: skip
VIEWS = [("light", "wide"), ("dark", "phone")]  # color scheme and size
TIMEOUT = 120_000  # ms
MAX_UPLOAD = 5_000_000
FLAGS = [
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a microphone that beeps
    "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip


def require(condition: object, reason: str) -> None:
    """Skip the test unless `condition` holds; in CI, fail."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def require_runtime() -> None:
    require((STATIC / "lib/ort/version.txt").exists(), "needs onnxruntime-web: python hatch_build.py")


@contextlib.contextmanager
def launch_browser(microphone: Path) -> Iterator[Browser]:
    """Chromium, whose microphone plays a wav file."""
    with sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextlib.contextmanager
def open_page(
    browser: Browser,
    url: str,
    color_scheme: Literal["light", "dark"] = "light",
    size: str = "wide",
    token: str | None = None,
) -> Iterator[Page]:
    """A page in its own context; fails at the end for errors in its console, and for requests to other hosts."""
    context = browser.new_context(
        viewport=SIZES[size],
        color_scheme=color_scheme,
        reduced_motion="reduce",
        http_credentials={"username": "any", "password": token} if token else None,
    )
    context.set_default_timeout(TIMEOUT)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

    def check_host(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("blob", "data") and parts.netloc != urlsplit(url).netloc:
            errors.append(f"request to another host: {address}")

    page.on("request", lambda request: check_host(request.url))
    try:
        page.goto(url)
        yield page
        assert not errors, "\n".join(errors)
    finally:
        context.close()


def add_songs(page: Page, *files: Path) -> None:
    """Choose files, and wait until each is classified or has failed."""
    before = page.locator("#cards article").count()
    page.set_input_files("#files", list(files))
    expect(page.locator("#cards article")).to_have_count(before + len(files))
    wait_until_done(page)


def wait_until_done(page: Page) -> None:
    expect(page.locator(".progress:visible")).to_have_count(0, timeout=TIMEOUT)


def switch_to_browser(page: Page) -> None:
    """Classify in the browser alone from now on."""
    page.get_by_label("Classify in this browser").check()
    expect(page.locator("#in-browser-status")).to_contain_text("On:", timeout=TIMEOUT)


def write_songs(folder: Path) -> list[Path]:
    """Disco, then classical music in one file (48 s); disco (24 s); noise; and a file that isn't audio."""
    clips = script("scripts/make_clips.py")
    disco, classical = (style(np.random.default_rng(0)) for style in (clips.disco, clips.classical))
    soundfile.write(folder / "Two genres.wav", np.concatenate([disco, classical]), clips.RATE)
    soundfile.write(folder / "Disco.wav", disco, clips.RATE)
    soundfile.write(folder / "Noise.wav", make_noise(12), RATE)
    (folder / "Broken.mp3").write_bytes(b"not audio" * 100)
    return [folder / name for name in ("Two genres.wav", "Disco.wav", "Noise.wav", "Broken.mp3")]


def _uploading(page: Page, songs: list[Path]) -> None:
    page.route("**/v1/predict?*", lambda route: None)  # never answered
    page.set_input_files("#files", list(songs))
    expect(page.locator(".progress:visible")).to_have_count(len(songs))


def _explanation(page: Page, songs: list[Path]) -> None:
    add_songs(page, songs[0])
    page.get_by_role("button", name="Why?").click()
    page.locator(".explanation canvas").wait_for()


def _live(page: Page, songs: list[Path]) -> None:
    require_runtime()
    page.get_by_role("button", name="Listen", exact=True).click()
    expect(page.locator("#live-text")).to_contain_text("last 10 seconds", timeout=TIMEOUT)


def _list(page: Page, songs: list[Path]) -> None:
    add_songs(page, *songs)
    page.get_by_role("button", name="List", exact=True).click()
    page.get_by_role("button", name="Play Disco.wav").click()
    page.get_by_label("Zoom").fill("2")
    page.locator("#player-play").click()


def _compare(page: Page, songs: list[Path]) -> None:
    add_songs(page, *songs)
    page.get_by_role("button", name="Compare").click()


def _in_browser(page: Page, songs: list[Path]) -> None:
    require_runtime()
    switch_to_browser(page)
    add_songs(page, songs[0])


def _library(page: Page, songs: list[Path]) -> None:
    page.get_by_role("button", name="Play").first.click()
    page.locator("#audio").evaluate("audio => { audio.pause(); audio.currentTime = 0; }")


# path of the page, and how the state is reached
STATES: dict[str, tuple[str, Callable[[Page, list[Path]], object]]] = {
    "start": ("/", lambda page, songs: None),
    "uploading": ("/", _uploading),
    "live": ("/", _live),
    "list": ("/", _list),
    "cards": ("/", lambda page, songs: add_songs(page, *songs)),
    "explanation": ("/", _explanation),
    "compare": ("/", _compare),
    "in-browser": ("/", _in_browser),
    "model": ("/model", lambda page, songs: page.locator(".confusion").wait_for()),
    "library": ("/library", _library),
}
