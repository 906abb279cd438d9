"""Draw the README's image of the web UI: PYTHONPATH=. python scripts/screenshot.py SONG

Needs Chromium and the development dependencies. Writes docs/images/page.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.pages import add_songs, launch_browser, open_page
from tests.serving import running

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "page.png"
SIZE = {"width": 1100, "height": 720}


def main() -> None:
    with running() as server, launch_browser() as browser, open_page(browser, str(server.base_url)) as page:
        page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        add_songs(page, Path(sys.argv[1]))
        page.get_by_role("button", name="Why?").click()
        page.locator(".explanation canvas").wait_for()
        page.locator("article").scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        page.locator("article").screenshot(path=IMAGE)


if __name__ == "__main__":
    main()
