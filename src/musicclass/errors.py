"""The exceptions of musicclass, and their messages.

Messages name the file, the cause and the remedy.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from types import ModuleType

# Control characters, bidirectional overrides, and surrogates.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class MusicClassError(Exception):
    """Base of every error that musicclass raises deliberately."""


class AudioError(MusicClassError):
    """One file can't be used; others are not affected."""


class DecodeError(AudioError):
    """Not audio, damaged, truncated, or beyond the limits of AudioConfig."""


class SilentError(AudioError):
    """No sample exceeds one 16-bit step, or all log-mel windows are constant."""


class InvalidSampleError(AudioError):
    """NaN, infinite or huge samples."""


class TooShortError(AudioError):
    """Under a second of audio."""


class ConfigError(MusicClassError):
    """Unknown, misspelt or invalid settings."""


class DatasetError(MusicClassError):
    """Missing, damaged or unsuitable data set."""


class LeakError(DatasetError):
    """A track, an exact copy of it, or its artist is in two subsets of a split."""


class ModelError(MusicClassError):
    """Missing or damaged model, or one that doesn't match its card."""


class LibraryError(MusicClassError):
    """A run over a library can't start or continue."""


class MissingExtraError(MusicClassError):
    """An optional dependency is not installed."""


@contextlib.contextmanager
def naming_errors(name: str) -> Iterator[None]:
    """Prefix the message of an AudioError that is raised inside with the name of the file."""
    try:
        yield
    except AudioError as error:
        raise type(error)(f"{name}: {error}") from error.__cause__


def import_optional(module: str, extra: str) -> ModuleType:
    """Import `module`. Raises MissingExtraError, which names the package to install, when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        package = {"sklearn": "scikit-learn", "python_multipart": "python-multipart"}.get(package, package)
        remedy = f'pip install {package}, or in a clone of musicclass: pip install ".[{extra}]"'
        raise MissingExtraError(f"{package} is not installed; run: {remedy}") from error


def escape_control_chars(text: str) -> str:
    """Escape characters that a terminal would interpret or can't print; file names may contain them."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
