"""The genres in the tags of an audio file, by mutagen, and the audio beside them, by FFmpeg."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
from collections.abc import Sequence
from typing import Any

from musicclass.audio_decoders import open_container
from musicclass.errors import import_optional
from musicclass.library import raw_tags

# The key of the genres in a format's tags, by the class of mutagen's tags. Other formats have Vorbis comments or ID3.
KEYS = {"MP4Tags": "\xa9gen", "APEv2": "Genre", "ASFTags": "WM/Genre"}
MP3_SYNC = (b"\xff\xfa", b"\xff\xfb", b"\xff\xf2", b"\xff\xf3")  # MPEG-1 and MPEG-2, layer III
NO_GENRE = 255  # of ID3v1


class TagError(Exception):
    """The tags of a file can't be read, or can't be written safely."""


def read_genres(path: str) -> tuple[str, ...]:
    """The genres in a file's tags. Raises TagError when they can't be read or its format has no tags."""
    file = open_tags(path)
    if is_id3(file.tags):
        genres = [genre for frame in file.tags.getall("TCON") for genre in frame.genres]
    else:
        genres = [str(value) for value in file.tags.get(_key(file.tags), ())]
    if not any(genres) and (ape := _ape_beside_id3(file, path)) is not None:
        genres = [str(value) for value in ape.get("Genre", ())]
    return tuple(filter(None, genres)) or _ffmpeg_genres(path)


def write_genres(path: str, genres: Sequence[str], separator: str = "\0") -> None:
    """Set the genres in all of a file's tags that have genres; other tags and their versions stay as they are.

    They are separate values; `separator` joins them in ID3v2.3, which has none. Raises TagError.
    """
    file = open_tags(path)
    try:
        if not is_id3(file.tags):
            file.tags[_key(file.tags)] = list(genres)
            file.save()
        elif chunk := raw_tags.find_chunk(path, b"ID3 "):
            raw_tags.write_chunk(
                path, chunk, raw_tags.set_id3_genres(raw_tags.read_chunk(path, chunk), genres, separator)
            )
        elif type(file).__name__ in ("MP3", "TrueAudio"):
            _write_id3_file(path, file, genres, separator)
        else:
            from mutagen.id3 import TCON

            file.tags.setall("TCON", [TCON(encoding=3, text=list(genres))])
            file.save()
        if info := raw_tags.find_chunk(path, b"INFO", b"IGNR"):
            raw_tags.write_chunk(path, info, "; ".join(genres).encode() + b"\0")
    except Exception as error:
        raise TagError(f"{path}: its tags can't be written ({error})") from None
    if tuple(genres) != read_genres(path) and separator == "\0":
        raise TagError(f"{path}: its tags can't hold {', '.join(genres)}; nothing was written")


def _write_id3_file(path: str, file: Any, genres: Sequence[str], separator: str) -> None:
    """Set the genres in the tags that an mp3 has: ID3v2, APEv2 and ID3v1; without any, in a new ID3v2."""
    tag, ape, v1 = raw_tags.read_id3(path), _ape_beside_id3(file, path), raw_tags.read_id3v1(path)
    if ape is not None:
        ape["Genre"] = list(genres)
        ape.save(path)
        if v1 and not raw_tags.read_id3v1(path):  # mutagen drops it
            end = os.stat(path).st_size
            raw_tags.splice(path, end, end, v1)
    if v1:
        number = _id3v1_number(genres)
        if number == NO_GENRE and not tag and ape is None:
            raise TagError(f"its tag is ID3v1, which has no number for {genres[0]}; give it an ID3v2 tag first")
        raw_tags.set_id3v1_genre(path, number)
    if tag or not (v1 or ape is not None):
        raw_tags.splice(path, 0, len(tag), raw_tags.set_id3_genres(tag, genres, separator))


def _ape_beside_id3(file: Any, path: str) -> Any:
    """The APEv2 tag of an mp3, or None."""
    if type(file).__name__ in ("MP3", "TrueAudio"):
        from mutagen.apev2 import APEv2

        with contextlib.suppress(Exception):  # missing or damaged
            return APEv2(path)
    return None


def _id3v1_number(genres: Sequence[str]) -> int:
    from mutagen._constants import GENRES

    numbers = {name.casefold(): number for number, name in enumerate(GENRES)}
    return numbers.get(genres[0].casefold(), NO_GENRE)


def spelling(genre: str) -> str:
    """A genre without case, spaces and punctuation: "Hip-Hop" and "hiphop" are one."""
    return "".join(filter(str.isalnum, genre.casefold()))


def audio_hash(path: str) -> str:
    """SHA-256 of the encoded audio in a file, without its tags. Raises TagError when it can't be read."""
    return _audio_digest(path).hex()


def audio_key(path: str) -> bytes:
    """What identifies the audio in a file, whatever its name and tags: 16 bytes. Raises TagError."""
    with contextlib.suppress(OSError, ValueError):
        if (digest := _mp3_digest(path)) is not None:
            return digest[:16]
    return _audio_digest(path)[:16]


def _mp3_digest(path: str) -> bytes | None:
    """SHA-256 of an mp3 between its tags, in an eighth of the time of `_audio_digest`; None for other files."""
    _check_regular(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        start, end = raw_tags.id3_size(view[: raw_tags.HEADER]), len(view)
        if view[start : start + 2] not in MP3_SYNC:
            return None
        end -= len(raw_tags.read_id3v1(path))
        if view[end - 32 : end - 24] == b"APETAGEX":  # its size excludes a header
            has_header = view[end - 9] & 0x80
            end -= int.from_bytes(view[end - 20 : end - 16], "little") + 32 * bool(has_header)
        with memoryview(view) as content, content[start : max(start, end)] as audio:
            return hashlib.sha256(audio).digest()


def _audio_digest(path: str) -> bytes:
    import av.error

    digest = hashlib.sha256()
    try:
        _check_regular(path)
        with open_container(path) as container:
            stream = container.streams.audio[0]
            digest.update(
                f"{container.format.name} {stream.codec_context.name} {stream.rate} {stream.channels}".encode()
            )
            for packet in container.demux(container.streams.audio[0]):
                digest.update(bytes(packet))
    except (av.error.FFmpegError, OSError, ValueError, IndexError, AttributeError) as error:
        raise TagError(f"{path}: can't be read ({error})") from None
    return digest.digest()


def _check_regular(path: str) -> None:
    """Raise OSError for a pipe, which would block, and other files that aren't regular."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")


def open_tags(path: str) -> Any:
    """The file of mutagen, with tags."""
    mutagen = import_optional("mutagen", "tags")
    try:
        _check_regular(path)
        file = _open_by_content(mutagen, path)
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


def _open_by_content(mutagen: Any, path: str) -> Any:
    """The file as mutagen's kind for its first bytes or, where they don't say, for its name."""
    with open(path, "rb") as source:
        start = raw_tags.id3_size(source.read(raw_tags.HEADER))
        source.seek(start)
        if source.read(4) == b"fLaC":  # some have an ID3 tag before it
            from mutagen.flac import FLAC

            return FLAC(path)
    with contextlib.suppress(Exception), open(os.open(path, os.O_RDONLY), "rb") as nameless:
        if (kind := mutagen.File(nameless)) is not None:
            return type(kind)(path)
    return mutagen.File(path)


def is_id3(tags: Any) -> bool:
    return any(base.__name__ in ("ID3", "ID3Tags") for base in type(tags).__mro__)


def _key(tags: Any) -> str:
    return KEYS.get(type(tags).__name__, "genre")


def _ffmpeg_genres(path: str) -> tuple[str, ...]:
    """Genres where mutagen doesn't look, such as the INFO chunk of a wav file."""
    with contextlib.suppress(Exception), open_container(path) as container:
        metadata = {**container.streams.audio[0].metadata, **container.metadata}
        return tuple(value for name, value in metadata.items() if name.casefold() == "genre" and value)
    return ()
