"""A plugin for beets (2.7 or later): the genres of tracks, as musicclass hears them, into beets' `genres`.

    plugins: musicclass
    musicclass:
        auto: yes            # at each import
        mode: only missing   # or append, or replace: what happens to genres that are there
        top: 1               # so many genres a track
        min_confidence:      # by default, what is familiar to the model is told
        model: gtzan
        names:               # yours, for the model's
            hiphop: Hip-Hop

`beet musicclass QUERY` does the same for tracks that are in the library; --pretend only shows it.
An album without genres, or with `replace`, gets that of most of its tracks.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from beets import config, ui
from beets.library import Album, Item
from beets.plugins import BeetsPlugin

from musicclass.bundle import load_bundle
from musicclass.errors import MusicClassError
from musicclass.library.run import Options, as_row, make_listener, usable_cores
from musicclass.library.tags import Change, Left, Mode, Tagging, proposal
from musicclass.library.workers import Pool


class MusicClassPlugin(BeetsPlugin):
    """Sets `genres` at import, and by the command `musicclass`."""

    def __init__(self) -> None:
        super().__init__()
        self.config.add(
            {"auto": True, "mode": "only missing", "top": 1, "min_confidence": None, "model": "gtzan", "names": {}}
        )
        if self.config["auto"].get(bool):
            self.import_stages = [self.imported]

    def commands(self) -> list[ui.Subcommand]:
        command = ui.Subcommand("musicclass", help="tell genres by how tracks sound")
        command.parser.add_option("-p", "--pretend", action="store_true", help="show what would change, and leave it")
        command.parser.add_option("-f", "--replace", action="store_true", help="put in place of genres that are there")
        command.parser.add_option("-a", "--append", action="store_true", help="add to genres that are there")

        def run(library: Any, options: Any, arguments: list[str]) -> None:
            mode = Mode.replace if options.replace else Mode.append if options.append else self._mode()
            changed = self._tell(library.items(arguments), mode, config["import"]["write"].get(bool), options.pretend)
            for album in {item.album_id: item.get_album() for item in changed if item.album_id}.values():
                self._tell_album(album, mode)

        command.func = run
        return [command]

    def imported(self, session: Any, task: Any) -> None:
        """At an import: into the library alone, as the files are still the originals; beets writes its copies later."""
        mode = self._mode()
        self._tell(task.imported_items(), mode, write=False)
        if task.is_album:
            self._tell_album(task.album, mode)

    def _mode(self) -> Mode:
        return Mode(self.config["mode"].as_choice([mode.value for mode in Mode]))

    def _tell(self, items: Iterable[Item], mode: Mode, write: bool, pretend: bool = False) -> list[Item]:
        """Set genres in beets' library and, with `write`, in tags; returns the items that it changed."""
        found = {os.fsdecode(item.path): item for item in items if mode is not Mode.only_missing or not item.genres}
        changed = []
        try:
            for path, change in self._changes(found, mode):
                if isinstance(change, Left):
                    self._log.info("{}", change.why)
                    continue
                item = found[path]
                before, now = ", ".join(change.before) or "none", ", ".join(change.after)
                self._log.info("{}: {} -> {}", item, before, now)
                if pretend:
                    ui.print_(f"{item}: {before} -> {now}")
                    continue
                item.genres = list(change.after)
                item.try_sync(write=write, move=False)
                changed.append(item)
        except MusicClassError as error:
            raise ui.UserError(f"musicclass: {error}") from None
        return changed

    def _changes(self, items: dict[str, Item], mode: Mode) -> Iterator[tuple[str, Change | Left]]:
        settings = self.config
        bundle = load_bundle(settings["model"].as_str())
        names = {genre: str(name) for genre, name in settings["names"].get(dict).items()}
        tagging = Tagging(mode, settings["top"].get(int), settings["min_confidence"].get(), names)
        listener = functools.partial(make_listener, str(bundle.path))
        limits = Options()
        with Pool(listener, max(1, min(usable_cores(), len(items))), limits.timeout, limits.max_memory) as pool:
            for path, value in pool.map(items):
                row = as_row(path, value, bundle.name)
                yield path, proposal(path, row, tuple(items[path].genres or ()), bundle, tagging)

    def _tell_album(self, album: Album, mode: Mode) -> None:
        if album.genres and mode is not Mode.replace:
            return
        told = Counter(genre for item in album.items() for genre in (item.genres or ())[:1])
        if told:
            album.genres = [told.most_common(1)[0][0]]
            album.store(inherit=False)
