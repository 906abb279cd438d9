"""Every setting, with its unit. Frozen; read from and written to TOML and JSON; typos are refused."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from musicclass.errors import ConfigError

T = TypeVar("T")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


@dataclass(frozen=True)
class AudioConfig:
    """What is accepted from a file. Headers lie, so each limit holds for what is really decoded."""

    max_seconds: float = 7200.0  # the rest of a longer file is not read
    max_channels: int = 8
    min_rate: int = 4_000  # Hz
    max_rate: int = 384_000  # Hz


@dataclass(frozen=True)
class FeatureConfig:
    """From waveform to MFCC. The first seven fields decide the log-mel frames, the rest what is made of them."""

    sample_rate: int = 22_050  # Hz
    n_fft: int = 2048  # samples in a frame
    hop_length: int = 914  # samples from one frame to the next
    n_mels: int = 128  # bands of the mel filter bank
    n_bands: int = 112  # the lowest of them that are kept: up to 7.2 kHz, which nearly any encoder keeps
    fmin: float = 0.0  # Hz
    fmax: float = 11_025.0  # Hz

    top_db: float = 80.0  # the floor, in dB below the maximum
    scale_seconds: float = 30.0  # the stretch around a window that sets the maximum
    n_mfcc: int = 64
    window_seconds: float = 10.0  # what the network hears at once

    def __post_init__(self) -> None:
        _check(self.sample_rate > 0 and self.n_fft > 0, "features.n_fft and .sample_rate must be positive")
        _check(0 < self.hop_length <= self.n_fft, "features.hop_length must be between 1 and n_fft")
        _check(0 < self.n_bands <= self.n_mels, "features.n_bands must be between 1 and n_mels")
        _check(0 < self.n_mfcc <= self.n_bands, "features.n_mfcc must be between 1 and n_bands")
        _check(
            0 <= self.fmin < self.fmax <= self.sample_rate / 2,
            f"features.fmin and .fmax must rise from 0 to at most half the sample rate, {self.sample_rate / 2:g} Hz",
        )
        _check(self.top_db > 0, "features.top_db must be positive")
        _check(self.window_seconds >= 1, "features.window_seconds must be at least 1")
        _check(self.scale_seconds >= self.window_seconds, "features.scale_seconds must be at least window_seconds")

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate / self.hop_length

    @property
    def window_frames(self) -> int:
        return round(self.window_seconds * self.frames_per_second)

    @property
    def scale_frames(self) -> int:
        return round(self.scale_seconds * self.frames_per_second)

    def log_mel_settings(self) -> dict[str, Any]:
        """The settings that log-mel frames depend on: equal ones mean interchangeable frames."""
        names = ("sample_rate", "n_fft", "hop_length", "n_mels", "n_bands", "fmin", "fmax")
        return {name: getattr(self, name) for name in names}


NETWORKS = ("cnn_lstm+statistics", "cnn_lstm", "statistics", "student")


@dataclass(frozen=True)
class ModelConfig:
    """The network. One entry of `filters`, `time_pool` and `band_pool` for each convolution block."""

    network: str = "cnn_lstm+statistics"  # or one of them, or "student", which this project grew from
    subtract_mean: bool = False  # of each MFCC over the window: what an equaliser adds (Furui 1981)
    unmix_bands: int = 64  # bands that the first layer turns the MFCCs back into; 0: none
    stem: tuple[int, ...] = (9, 8)  # frames and bands a filter of the first block spans, in steps of its pool
    filters: tuple[int, ...] = (32, 64, 64, 96)
    time_pool: tuple[int, ...] = (4, 2, 2, 1)
    band_pool: tuple[int, ...] = (4, 2, 2, 4)
    squeeze: bool = True  # each block weighs its channels by what the whole window is like (Hu et al. 2018)
    lstm_units: int = 64
    lstm_layers: int = 1
    bidirectional: bool = True
    summary: str = "attention"  # of the LSTM's steps: "last", "mean" or "attention"
    dropout: float = 0.3
    shrinkage: float = 0.3  # of the covariance by which the statistics of the MFCCs are weighed
    members: int = 1  # CNN-LSTMs side by side, logits averaged; every second one the other way about `subtract_mean`

    def __post_init__(self) -> None:
        _check(self.network in NETWORKS, f"model.network must be one of {', '.join(NETWORKS)}")
        _check(
            len(self.filters) == len(self.time_pool) == len(self.band_pool) > 0,
            "model.filters, .time_pool and .band_pool need one entry for each block",
        )
        _check(
            min(*self.filters, *self.time_pool, *self.band_pool) > 0
            and min(self.lstm_units, self.lstm_layers, self.members) > 0,
            "model sizes must be positive",
        )
        _check(len(self.stem) == 2 and min(self.stem) > 0, "model.stem needs two positive sizes: frames, bands")
        _check(self.unmix_bands >= 0, "model.unmix_bands must not be negative")
        _check(self.summary in ("last", "mean", "attention"), 'model.summary must be "last", "mean" or "attention"')
        _check(0 <= self.dropout < 1, "model.dropout must be in [0, 1)")
        _check(0 < self.shrinkage <= 1, "model.shrinkage must be above 0, and at most 1")

    @property
    def kinds(self) -> list[list[ModelConfig]]:
        """What the network consists of, kind by kind: a configuration for each of its networks.

        Statistics have one solution. CNN-LSTMs with and without means make other mistakes.
        """
        found = []
        for kind in self.network.split("+"):
            one, count = dataclasses.replace(self, network=kind, members=1), 1 if kind == "statistics" else self.members
            subtract = [self.subtract_mean != bool(i % 2) for i in range(count)]
            found.append([dataclasses.replace(one, subtract_mean=means) for means in subtract])
        return found


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained. Augmentations are off at 0. Statistics only know pitch and tempo of it."""

    seed: int = 42
    epochs: int = 60
    pretraining: int = 0  # epochs before these, without labels: which windows belong to one track?
    batch_size: int = 32
    windows_per_track: int = 3  # drawn anew in each epoch
    learning_rate: float = 2e-3  # at its peak; falls as a half cosine
    weight_decay: float = 1e-3
    label_smoothing: float = 0.0

    mixup: float = 0.0  # alpha of the Beta distribution
    pitch: float = 2.0  # up to so many semitones up or down
    tempo: float = 0.15  # up to this share faster or slower
    band_limit: float = 0.15  # chance that the highest bands are cut off
    echo: float = 0.15  # chance of a comb filter
    hiss: float = 0.25  # chance of a noise floor
    contrast: float = 0.15  # up to this share more or less between loud and quiet
    eq_db: float = 6.0  # depth of a random smooth equaliser
    noise_db: float = 3.0  # deviation of noise on single cells
    time_mask: float = 0.15  # up to this share of a window, twice
    band_mask: float = 0.15  # up to this share of the bands, twice

    def __post_init__(self) -> None:
        _check(
            min(self.epochs, self.batch_size, self.windows_per_track) > 0,
            "training.epochs, .batch_size and .windows_per_track must be positive",
        )
        _check(self.pretraining >= 0, "training.pretraining must not be negative")
        _check(0 <= self.seed < 2**32, "training.seed must be between 0 and 4294967295")
        _check(self.learning_rate > 0, "training.learning_rate must be positive")
        _check(0 <= self.label_smoothing < 1, "training.label_smoothing must be in [0, 1)")
        _check(0 <= self.tempo < 0.9, "training.tempo must be in [0, 0.9)")
        _check(
            min(self.mixup, self.pitch, self.contrast, self.eq_db, self.noise_db, self.weight_decay) >= 0
            and 0 <= self.time_mask < 1
            and 0 <= self.band_mask < 1,
            "training: augmentations must not be negative, masks be under 1",
        )
        _check(
            min(self.band_limit, self.echo, self.hiss) >= 0 and max(self.band_limit, self.echo, self.hiss) <= 1,
            "training.band_limit, .echo and .hiss are chances, from 0 to 1",
        )


@dataclass(frozen=True)
class Config:
    """All that a training run is made of."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainConfig = field(default_factory=TrainConfig)


# The student's network as the README describes it: three seconds, 23 MFCCs, no augmentation.
STUDENT = Config(
    FeatureConfig(hop_length=512, n_bands=128, n_mfcc=23, window_seconds=3.0),
    ModelConfig(
        network="student",
        unmix_bands=0,
        filters=(32, 64, 64),
        time_pool=(2, 2, 2),
        band_pool=(2, 2, 2),
        lstm_layers=2,
        bidirectional=False,
        summary="last",
    ),
    TrainConfig(
        learning_rate=1e-3, weight_decay=0, label_smoothing=0, windows_per_track=10,
        mixup=0, pitch=0, tempo=0, band_limit=0, echo=0, hiss=0, contrast=0, eq_db=0,
        noise_db=0, time_mask=0, band_mask=0,
    ),
)  # fmt: skip
PRESETS = {"default": Config(), "student": STUDENT}


def from_dict(kind: type[T], values: dict[str, Any], base: T | None = None, where: str = "") -> T:
    """Build the configuration `kind` from a dict, over `base` where that is given.

    Raises ConfigError for an unknown name (with the nearest known one) or a value of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    done: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            hint = f"did you mean {where}{near[0]}?" if near else f"there are: {', '.join(hints)}"
            raise ConfigError(f"unknown setting {where}{name}; {hint}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}{name} is a section, not a value")
            inner = getattr(base, name) if base is not None else None
            done[name] = from_dict(typing.cast(type, hints[name]), value, inner, f"{where}{name}.")
        else:
            done[name] = _convert(hints[name], value, where + name)
    if base is not None:
        return typing.cast(T, dataclasses.replace(typing.cast(Any, base), **done))
    return kind(**done)


def _convert(hint: Any, value: Any, name: str) -> Any:
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(typing.get_args(hint)[0], item, name) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = "list of whole numbers" if typing.get_origin(hint) is tuple else hint.__name__
    raise ConfigError(f"{name} must be of type {wanted}, not {value!r}")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain, JSON-ready values; `from_dict` reads it back."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def load_config(source: str | None = None, settings: tuple[str, ...] = ()) -> Config:
    """A preset's name or a TOML file (`[features]`, `[model]`, `[training]`), then `section.name=value` settings.

    Raises ConfigError for what can't be read, is unknown, or is out of range.
    """
    config = PRESETS["default"]
    if source in PRESETS:
        config = PRESETS[source]
    elif source is not None:
        config = from_dict(Config, _read_toml(Path(source)), config)
    sections: dict[str, Any] = {}  # together, as some settings only fit one another
    for section, name, value in map(_parse_setting, settings):
        sections.setdefault(section, {})[name] = value
    return from_dict(Config, sections, config)


def with_seed(config: Config, seed: int) -> Config:
    """The same configuration with another `training.seed`."""
    return dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, nor one of the presets {', '.join(PRESETS)}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: can't be read as TOML: {error}") from None


def _parse_setting(setting: str) -> tuple[str, str, Any]:
    name, equals, text = setting.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ConfigError(f"{setting!r}: settings look like training.epochs=50")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return section, key, value
