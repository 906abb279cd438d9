"""The layout that all HTML pages share: those of the web UI, and reports, which are files that need nothing else."""

from __future__ import annotations

import html
from pathlib import Path
from string import Template
from urllib.parse import quote

LAYOUT = Path(__file__).with_name("layout")  # page.html, its style sheet, icon, and helpers in JavaScript


def render_page(title: str, main: str, head: str, home: str = "#", nav: str = "", footer: str = "") -> str:
    """A page with the HTML `main`; `head` adds styles and scripts, `home` is where the name leads."""
    icon = f"data:image/svg+xml,{quote(_read('icon.svg'))}"
    layout = Template(_read("page.html"))
    title = html.escape(title)
    return layout.substitute(title=title, icon=icon, main=main, head=head, home=home, nav=nav, footer=footer)


def render_report(title: str, main: str, script: str = "") -> str:
    """A page that holds its style sheet and `script`, which comes after the helpers of dom.js, in one module."""
    if script:
        main += f'\n<script type="module">\n{_read("dom.js")}\n{script}</script>'
    return render_page(title, main, f"<style>\n{_read('style.css')}</style>")


def _read(name: str) -> str:
    return (LAYOUT / name).read_text(encoding="utf-8")
