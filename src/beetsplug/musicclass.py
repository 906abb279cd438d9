"""A plugin for beets (2.7 or later): sets `genres` to the genres that musicclass predicts.

    plugins: musicclass
    musicclass:
        auto: yes            # at each import
        mode: only missing   # or append, or replace: what happens to present genres
        top: 1               # genres per track
        min_confidence:      # by default 0.5, and not "unknown"
        model: music
        library:             # a table of `musicclass library`, whose results are used
        names:               # how genres are written
            hiphop: Rap

`beet musicclass QUERY` does the same for tracks in the library; --pretend only shows the changes.
An album without genres, or with mode `replace`, gets the most frequent first genre of its tracks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from beets import config, ui
from beets.library import Album, Item
from beets.plugins import BeetsPlugin

from musicclass.errors import MusicClassError
from musicclass.library.corrections import Corrections
from musicclass.library.run import ProgressCallback, ScanOptions, ScanSummary, file_state, rows_of_files
from musicclass.library.table import table_name
from musicclass.library.tags import Skipped, TagChange, TagMode, TagOptions, load_genre_names, propose_change
from musicclass.progress import make_progress
from musicclass.saved_model import DEFAULT_MODEL, load_model


class MusicClassPlugin(BeetsPlugin):
    """Sets `genres` at import, and by the command `musicclass`."""

    def __init__(self) -> None:
        super().__init__()
        defaults = {
            "auto": True,
            "mode": "only missing",
            "top": 1,
            "min_confidence": None,
            "model": DEFAULT_MODEL,
            "library": None,
            "names": {},
        }
        self.config.add(defaults)
        self._imported = set[int]()  # identifiers of items with new genres
        if self.config["auto"].get(bool):
            self.import_stages = [self.imported]
            self.register_listener("import_task_files", self.write_files)

    def commands(self) -> list[ui.Subcommand]:
        command = ui.Subcommand("musicclass", help="predict the genres of tracks from their audio")
        command.parser.add_option("-p", "--pretend", action="store_true", help="only show the changes")
        command.parser.add_option("-f", "--replace", action="store_true", help="replace present genres")
        command.parser.add_option("-a", "--append", action="store_true", help="add to present genres")

        def run(library: Any, options: Any, arguments: list[str]) -> None:
            mode = TagMode.replace if options.replace else TagMode.append if options.append else self._mode()
            write = config["import"]["write"].get(bool)
            with make_progress() as bar:
                task = bar.add_task("Files", total=None)

                def show(summary: ScanSummary) -> None:
                    bar.update(task, completed=summary.done, total=summary.files)

                changed = self._set_genres(library.items(arguments), mode, write, options.pretend, show)
            for album in {item.album_id: item.get_album() for item in changed if item.album_id}.values():
                self._set_album_genre(album, mode)

        command.func = run
        return [command]

    def imported(self, session: Any, task: Any) -> None:
        """At import, only the library changes, as the files are still the originals; see `write_files`."""
        mode = self._mode()
        self._imported.update(item.id for item in self._set_genres(task.imported_items(), mode, write=False))
        if task.is_album:
            self._set_album_genre(task.album, mode)

    def write_files(self, session: Any, task: Any) -> None:
        """Write the genres into the imported files, where beets doesn't, as with `import -A`."""
        for item in task.imported_items():
            if item.id in self._imported and not task.apply and config["import"]["write"].get(bool):
                item.try_write()

    def _mode(self) -> TagMode:
        return TagMode(self.config["mode"].as_choice([mode.value for mode in TagMode]))

    def _set_genres(
        self,
        items: Iterable[Item],
        mode: TagMode,
        write: bool,
        pretend: bool = False,
        show: ProgressCallback = lambda summary: None,
    ) -> list[Item]:
        """Set genres in beets' library and, with `write`, in tags; returns the changed items."""
        by_path = {
            os.fsdecode(item.path): item for item in items if mode is not TagMode.only_missing or not item.genres
        }
        changed = []
        try:
            for path, change in self._changes(by_path, mode, show):
                if isinstance(change, Skipped):
                    self._log.info("{}", change.reason)
                    continue
                item, message = by_path[path], f"{', '.join(change.before) or 'none'} -> {', '.join(change.after)}"
                self._log.info("{}: {}", item, message)
                if pretend:
                    ui.print_(f"{item}: {message}")
                    continue
                item.genres = list(change.after)
                item.try_sync(write=write, move=False)
                changed.append(item)
        except MusicClassError as error:
            raise ui.UserError(f"musicclass: {error}") from None
        return changed

    def _changes(
        self, items: dict[str, Item], mode: TagMode, show: ProgressCallback
    ) -> Iterator[tuple[str, TagChange | Skipped]]:
        model = load_model(self.config["model"].as_str())
        names = load_genre_names(None, model.genres)
        names |= {genre: str(name) for genre, name in self.config["names"].get(dict).items()}
        if unknown := sorted(set(names) - set(model.genres)):
            raise ui.UserError(f"musicclass: names: {unknown[0]} isn't a genre of {model.name}")
        tagging = TagOptions(mode, self.config["top"].get(int), self.config["min_confidence"].get(), names)
        library = Path(self.config["library"].as_filename()) if self.config["library"].get() else None
        corrections = Corrections(library).read() if library else {}
        files = map(file_state, items)
        for path, row in rows_of_files(files, ScanOptions(model=str(model.path)), model, library, show):
            before, correction = tuple(items[path].genres or ()), corrections.get(table_name(path), "")
            yield path, propose_change(path, row, before, model, tagging, correction)

    def _set_album_genre(self, album: Album, mode: TagMode) -> None:
        if album.genres and mode is not TagMode.replace:
            return
        genres = Counter(genre for item in album.items() for genre in (item.genres or ())[:1])
        if genres:
            album.genres = [genres.most_common(1)[0][0]]
            album.store(inherit=False)
