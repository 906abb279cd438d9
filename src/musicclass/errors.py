"""What can go wrong, as one tree; catching MusicClassError catches all of it.

MusicClassError
├── AudioError              one file can't be used; the others can
│   ├── DecodeError         not audio, damaged, cut short, or beyond the limits
│   ├── SilentError         nothing to hear
│   ├── InvalidSampleError  NaN or infinite samples
│   └── TooShortError       under a second
├── ConfigError             a setting that is unknown, misspelt or impossible
├── DatasetError            a data set that is missing, broken or doesn't fit
│   └── LeakError           a split with the same music on two sides
├── BundleError             a model that is missing, broken or doesn't fit its card
├── LibraryError            a run over many files that can't begin or go on
└── MissingExtraError       something that is not installed
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

# Controls, turns of direction, halves of characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class MusicClassError(Exception):
    """Base of every error that musicclass raises on purpose."""


class AudioError(MusicClassError):
    """One file can't be used. The message names the cause and the remedy."""


class DecodeError(AudioError):
    """Not audio, damaged, cut short, or beyond the limits of AudioConfig."""


class SilentError(AudioError):
    """No sample rises above one 16-bit step."""


class InvalidSampleError(AudioError):
    """The file holds NaN or infinite samples."""


class TooShortError(AudioError):
    """Less than a second of audio."""


class ConfigError(MusicClassError):
    """A setting that is unknown, misspelt or impossible."""


class DatasetError(MusicClassError):
    """A data set that is missing, broken, or doesn't fit what was asked of it."""


class LeakError(DatasetError):
    """The same track, an exact replica of it, or its artist stands on two sides of a split."""


class BundleError(MusicClassError):
    """A model bundle that is missing, broken, or doesn't fit its card."""


class LibraryError(MusicClassError):
    """A run over many files that can't begin or go on."""


class MissingExtraError(MusicClassError):
    """An optional part of musicclass is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Raises MissingExtraError when it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'this needs {module.partition(".")[0]}, which is not installed: pip install "musicclass[{extra}]"'
        ) from error


def printable(text: str) -> str:
    """The text with what moves a terminal's cursor, or can't be printed, as escapes: file names may hold anything."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
