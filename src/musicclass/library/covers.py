"""The image in the tags of an audio file, by mutagen."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

from musicclass.library.genre_tags import is_id3, open_tags

MAX_BYTES = 10_000_000
FRONT = 3  # of an image's type
MEDIA_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"GIF8": "image/gif"}


def read_cover(path: str) -> tuple[bytes, str] | None:
    """The image in a file's tags, the front cover before others, and its media type; None without one.

    Only JPEG, PNG, GIF and WebP, by their first bytes, up to MAX_BYTES. Raises TagError and MissingExtraError.
    """
    for image in _images(open_tags(path)):
        if len(image) <= MAX_BYTES and (media_type := _media_type(image)):
            return image, media_type
    return None


def _media_type(image: bytes) -> str | None:
    """By the first bytes, as tags may name another type, or one that runs scripts."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in MEDIA_TYPES.items() if image.startswith(start)), None)


def _images(file: Any) -> Iterator[bytes]:
    """The images of a file of mutagen."""
    tags = file.tags
    if is_id3(tags):
        images = [*tags.getall("APIC"), *tags.getall("PIC")]
    elif type(tags).__name__ == "MP4Tags":
        yield from map(bytes, tags.get("covr", ()))
        return
    else:
        images = getattr(file, "pictures", None) or list(_blocks(tags))
    yield from (image.data for image in sorted(images, key=lambda image: image.type != FRONT))


def _blocks(tags: Any) -> Iterator[Any]:
    """The images in Vorbis comments outside FLAC files, which are in Base64."""
    from mutagen import flac

    for block in tags.get("metadata_block_picture", ()):
        with contextlib.suppress(Exception):  # damaged
            yield flac.Picture(base64.b64decode(block))
