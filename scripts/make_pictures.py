"""Draw the page for the README: python scripts/make_pictures.py SONG... writes docs/images/page.png and page.webp

Needs Chromium, and what `pip install -e ".[dev]"` brings. The still picture is of the first song and why; the animated
one shows all songs dropped, heard, one of them listened to, and compared.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1100, "height": 720}
SHOWN = (880, 576)  # of the animated picture
STEP = 120  # ms between two frames


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A server's address."""
    command = [sys.executable, "-m", "musicclass", "serve", "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found, "the server did not start"
        yield found[0]
        process.terminate()


class Film:
    """Screenshots, and how long each is shown in ms."""

    def __init__(self, page: Page):
        self.page = page
        self.frames: list[Image.Image] = []
        self.times: list[int] = []

    def take(self, ms: int = STEP) -> None:
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS)
        self.frames.append(frame)
        self.times.append(ms)

    def roll(self, frames: int) -> None:
        for _ in range(frames):
            self.take()
            self.page.wait_for_timeout(STEP)

    def save(self, path: Path) -> None:
        first, *rest = self.frames
        first.save(path, save_all=True, append_images=rest, duration=self.times, loop=0, quality=70, method=6)


def main() -> int:
    songs = sys.argv[1:]
    if not songs:
        print(__doc__, file=sys.stderr)
        return 2
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZE, color_scheme="light").new_page()  # type: ignore[arg-type]
        page.goto(url)
        page.wait_for_timeout(3000)  # until the workers have loaded the model
        film = Film(page)
        film.take(1200)
        page.set_input_files("#files", songs)
        expect(page.locator("article")).to_have_count(len(songs))
        while page.locator(".progress:visible").count():
            film.take()
        page.wait_for_timeout(200)
        film.take(1500)
        card = page.locator("article").first
        box = card.locator(".strip").bounding_box()
        assert box
        page.mouse.click(box["x"] + 0.55 * box["width"], box["y"] + 40)
        page.mouse.move(5, 5)
        film.roll(15)
        card.get_by_role("button", name="Pause").click()
        card.get_by_role("button", name="Why?").click()
        card.locator(".because canvas").wait_for()
        card.scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        film.take(2500)
        page.screenshot(path=IMAGES / "page.png", clip={"x": 0, "y": 0, **SIZE})
        page.evaluate("scrollTo(0, 0)")
        page.get_by_role("button", name="Compare").click()
        page.wait_for_timeout(200)
        film.take(2500)
        film.save(IMAGES / "page.webp")
        browser.close()
    for name in ("page.png", "page.webp"):
        print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1e3:.0f} kB, {len(film.frames)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
