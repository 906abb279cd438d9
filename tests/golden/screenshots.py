"""Store what the page looks like, small, after a change that is meant to change it: python -m tests.golden.screenshots

Look at the large ones first, which the tests leave in the temporary folder's musicclass-screenshots.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.pages import SCHEMES, SIZES, STATES, browsing, made_songs, opened, screenshot, small
from tests.serving import main_of, running

HERE = Path(__file__).parent / "screenshots"


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    songs = made_songs(folder)
    table = folder / "genres.csv"
    main_of("library", str(folder), "--out", str(table))
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    with running(library=table) as server, browsing() as browser:
        for scheme in SCHEMES:
            for size in SIZES:
                for name, state in STATES.items():
                    with opened(browser, f"{server.base_url}{state.path}", scheme, size) as page:
                        state.reach(page, songs)
                        (HERE / f"{name}-{scheme}-{size}.webp").write_bytes(small(screenshot(page)))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
