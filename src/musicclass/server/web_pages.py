"""The HTML of the web UI: the pages of songs and of a library, which scripts fill, of the model and of the API."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from musicclass.errors import ModelError
from musicclass.model_page import PageSection, render_model
from musicclass.page import render_page
from musicclass.saved_model import METRICS_PREFERENCE, SUBSET_NAMES, SavedModel, best_available_metrics
from musicclass.server.api_page import render_api
from musicclass.server.settings import ServerSettings
from musicclass.text import plural

STATIC = Path(__file__).with_name("static")
PAGES = {"/": "songs", "/library": "library", "/model": "model"}  # path -> name
API_PATH = "/api"
LIBRARIES = [STATIC / "lib" / name for name in ("alpine", "comlink", "idb", "screenshot")]  # that pages import
WITHOUT_LIBRARIES = """<h1>This page is missing</h1>
<p>musicclass was installed without the JavaScript libraries that this page needs. Where npm's registry can be
reached, run <code>pip install ".[web]"</code> in the clone of musicclass again (after an editable install:
<code>python hatch_build.py</code>), then start the server again.</p>
<p>The <a href="model">model</a>'s page and the <a href="api">API</a> work.</p>"""


def make_pages(model: SavedModel, settings: ServerSettings, openapi: dict[str, Any]) -> dict[str, str]:
    """Path -> page; `openapi` is the document of the API."""
    pages = {path: _render(path, name, model, settings) for path, name in PAGES.items()}
    return pages | {API_PATH: _render(API_PATH, "API", model, settings, render_api(openapi, settings))}


def _render(path: str, name: str, model: SavedModel, settings: ServerSettings, main: str = "") -> str:
    """A page of the layout; `main` is its HTML, if it isn't one of PAGES."""
    head = '<link rel="stylesheet" href="static/style.css">'
    head += '\n<link rel="manifest" href="static/manifest.webmanifest" crossorigin="use-credentials">'
    if name == "model":
        main = _model_page(model, settings)
    elif not main and not all(library.exists() for library in LIBRARIES):
        main = WITHOUT_LIBRARIES
    elif not main:
        head += f'\n<script type="module" src="static/{name}.js"></script>'
        main = (STATIC / f"{name}.html").read_text(encoding="utf-8")
    links = [
        f'<a href=".{target}" aria-current="{"page" if target == path else "false"}">{each.capitalize()}</a>'
        for target, each in PAGES.items()
        if each != "library" or settings.library
    ]
    nav = f'<nav aria-label="Pages">{" ".join(links)}</nav>'
    about = f'{html.escape(_describe(model))} <a href="model">Metrics</a>'
    footer = f'<p>{about} · <a href="api">API</a></p>'
    return render_page(name, main, head, "./", nav, f'<footer class="muted">{footer}</footer>')


def _describe(model: SavedModel) -> str:
    try:
        subset = best_available_metrics(model.card)
        accuracy = f", accuracy {model.card['metrics'][subset]['accuracy']:.1%} ({SUBSET_NAMES[subset]})"
    except ModelError:
        accuracy = ""
    return f"Model {model.name}: {plural(len(model.genres), 'genre')}{accuracy}."


def _model_page(model: SavedModel, settings: ServerSettings) -> str:
    """The model by its card, the least biased metrics first."""
    card = {name: value for name, value in model.card.items() if name != "versions"}
    split, metrics = card["data"]["split_name"], card["metrics"]
    names = {subset: f"{SUBSET_NAMES[subset].capitalize()}, split {split}" for subset in METRICS_PREFERENCE}
    sections = [PageSection(name, metrics[subset]) for subset, name in names.items() if metrics.get(subset)]
    return render_model(card, sections, settings.min_confidence)
