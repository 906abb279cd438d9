"""The genres in the tags of an audio file, by mutagen, and the audio beside them, by FFmpeg."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from typing import Any

from musicclass.audio_decoders import open_container
from musicclass.errors import import_optional

# The key of the genres in a format's tags, by the class of mutagen's tags. Other formats have Vorbis comments or ID3.
KEYS = {"MP4Tags": "\xa9gen", "APEv2": "Genre", "ASFTags": "WM/Genre"}


class TagError(Exception):
    """The tags of a file can't be read, or can't be written safely."""


def read_genres(path: str) -> tuple[str, ...]:
    """The genres in a file's tags. Raises TagError when they can't be read or its format has no tags."""
    file = _open(path)
    if _is_id3(file.tags):
        genres = [genre for frame in file.tags.getall("TCON") for genre in frame.genres]
    else:
        genres = [str(value) for value in file.tags.get(_key(file.tags), ())]
    if not any(genres) and type(file).__name__ == "MP3":
        from mutagen.apev2 import APEv2

        with contextlib.suppress(Exception):  # an mp3 may have both kinds of tags
            genres = [str(value) for value in APEv2(path).get("Genre", ())]
    return tuple(filter(None, genres)) or _ffmpeg_genres(path)


def write_genres(path: str, genres: Sequence[str]) -> None:
    """Set the genres in a file's tags, as separate values. Raises TagError."""
    file = _open(path)
    try:
        if not _is_id3(file.tags):
            file.tags[_key(file.tags)] = list(genres)
            file.save()
            return
        from mutagen.id3 import TCON

        if file.tags.version[:2] in ((2, 2), (2, 3)):  # v2.3 has no UTF-8, and no separator of values but by convention
            file.tags.setall("TCON", [TCON(encoding=1, text=list(genres))])
            file.tags.update_to_v23()
            file.tags.save(path, v2_version=3, v23_sep=None)
        else:
            file.tags.setall("TCON", [TCON(encoding=3, text=list(genres))])
            file.save()
    except Exception as error:
        raise TagError(f"{path}: its tags can't be written ({error})") from None


def audio_hash(path: str) -> str:
    """SHA-256 of the encoded audio in a file, without its tags. Raises TagError when it can't be read."""
    import av.error

    digest = hashlib.sha256()
    try:
        with open_container(path) as container:
            for packet in container.demux(container.streams.audio[0]):
                digest.update(bytes(packet))
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise TagError(f"{path}: can't be read ({error})") from None
    return digest.hexdigest()


def _open(path: str) -> Any:
    """The file of mutagen, with tags."""
    mutagen = import_optional("mutagen", "tags")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("not a regular file")
        file = mutagen.File(path)
        if type(file).__name__ == "MP3":
            from mutagen.id3 import ID3, ID3NoHeaderError

            with contextlib.suppress(ID3NoHeaderError):
                file.tags = ID3(path, translate=False)  # keeps the frames of ID3v2.3
    except Exception as error:  # mutagen raises errors of many kinds for damaged files
        raise TagError(f"{path}: its tags can't be read ({error})") from None
    try:
        if file.tags is None:
            file.add_tags()
    except Exception:  # no file, or a format without tags, such as AAC
        raise TagError(f"{path}: its format has no tags that musicclass can write") from None
    return file


def _is_id3(tags: Any) -> bool:
    return any(base.__name__ in ("ID3", "ID3Tags") for base in type(tags).__mro__)


def _key(tags: Any) -> str:
    return KEYS.get(type(tags).__name__, "genre")


def _ffmpeg_genres(path: str) -> tuple[str, ...]:
    """Genres where mutagen doesn't look, such as the INFO chunk of a wav file."""
    with contextlib.suppress(Exception), open_container(path) as container:
        metadata = {**container.streams.audio[0].metadata, **container.metadata}
        return tuple(value for name, value in metadata.items() if name.casefold() == "genre" and value)
    return ()
