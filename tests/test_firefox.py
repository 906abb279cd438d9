"""The pages of songs and of a library in headless Firefox (apt install firefox-esr), driven by Mozilla's Marionette."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from marionette_driver import By, Wait
from marionette_driver.keys import Keys
from marionette_driver.marionette import Marionette

from tests import pages
from tests.serving import main_of, running

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
PREFERENCES = {
    "media.navigator.streams.fake": True,  # a microphone that beeps
    "media.navigator.permission.disabled": True,
    "media.cubeb.force_mock_context": True,  # without a sound device, live audio never starts
}


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Marionette]:
    if not FIREFOX:
        pytest.skip("needs Firefox: apt install firefox-esr")
    client = Marionette(bin=FIREFOX, port=0, headless=True, prefs=PREFERENCES, gecko_log=str(tmp_path / "log"))
    try:
        client.start_session()
        yield client
    finally:
        client.cleanup()


@pytest.mark.slow
def test_pages_work_in_firefox(firefox: Marionette, tmp_path: Path) -> None:
    pages.require_runtime()
    _, disco, noise, _ = pages.write_songs(tmp_path)

    def run(script: str) -> object:
        return firefox.execute_script(script, sandbox=None)

    def wait_for(selector: str, text: str) -> None:
        script = f"return [...document.querySelectorAll({selector!r})].some(e => e.textContent.includes({text!r}))"
        Wait(firefox, timeout=60).until(lambda _: run(script), message=f"no {text!r} in {selector}")

    def click(selector: str) -> None:
        firefox.find_element(By.CSS_SELECTOR, selector).click()

    def add(song: Path, n_songs: int) -> None:
        firefox.find_element(By.ID, "files").send_keys(str(song))
        wait_for("#status", f"{n_songs} of {n_songs} song")

    table = tmp_path / "genres.parquet"
    main_of("library", str(disco), str(noise), "--out", str(table))
    with running(library=table) as server:
        firefox.navigate(str(server.base_url))
        wait_for("#genre-chips li", "disco")
        run("window.errors = []; addEventListener('error', ({message}) => errors.push(message)); files.hidden = false")
        add(disco, 1)
        wait_for("#cards .headline", "electronic")
        click("#cards .explain")
        wait_for(".explanation [role=status]", "Strongest evidence for electronic")
        click("#cards .play")
        wait_for("#player-time", "0:02 / 0:24")
        click("#player-close")
        assert run("return document.activeElement.ariaLabel") == "Play Disco.wav"
        click("#in-browser")
        wait_for("#in-browser-status", "On:")
        add(noise, 2)
        click("#listen")
        wait_for("#live-text", "the last 10 seconds: ")
        click("#keep")
        wait_for("#status", "3 of 3 songs classified")
        wait_for("#cards h2", ".ogg")
        assert run("return errors") == []
        firefox.refresh()  # Firefox keeps the values of controls
        wait_for("#status", "3 of 3 songs classified")
        wait_for("#in-browser-status", "Off:")
        assert run("return document.getElementById('in-browser').checked") is False
        firefox.navigate(f"{server.base_url}/library")
        wait_for("#total", "2 of 2 songs")
        firefox.find_element(By.CSS_SELECTOR, "#songs .correction").send_keys("synthwave" + Keys.ENTER)
        wait_for("#corrected", "1 song has a manual label.")
        firefox.find_element(By.ID, "text").send_keys("noise")
        wait_for("#total", "1 of 1 song")
