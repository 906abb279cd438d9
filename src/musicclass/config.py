"""Settings, with their units and ranges.

Sections are frozen dataclasses, read from TOML or JSON; unknown names, wrong types and values out of range are errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from musicclass.errors import ConfigError

T = TypeVar("T")
MAX_FRAMES = 20_000  # of a window
CONFIGS = Path(__file__).parent / "configs"
ARCHITECTURES = (
    "cnn_lstm+lda", "cnn_lstm", "lda", "baseline", "cnn_lstm+lda+tagger", "cnn_lstm+tagger", "lda+tagger",
    "frozen+tagger", "frozen",
)  # fmt: skip


def setting(default: Any, allowed: str | tuple[Any, ...] | None = (False, True)) -> Any:
    """A field of a section, whose value (or each of its values) is in the interval, or one of the values, `allowed`.

    None: any text.
    """
    return field(default=default, metadata={"allowed": allowed})


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class Section:
    """Checks its fields when it is made."""

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, name, allowed = getattr(self, item.name), f"{self.NAME}.{item.name}", item.metadata["allowed"]
            if allowed is None:
                continue
            if isinstance(allowed, tuple):
                _check(value in allowed, f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
            else:
                values = value if isinstance(value, tuple) else (value,)
                _check(all(_is_in(x, allowed) for x in values), f"{name} must be in {allowed}, not {value}")


def _is_in(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


@dataclass(frozen=True)
class AudioConfig:
    """Limits on an audio file. They apply to what is decoded, as headers can't be trusted."""

    max_seconds: float = 7200.0  # the rest of a longer file is not read
    max_channels: int = 8
    min_rate: int = 4_000  # Hz
    max_rate: int = 384_000  # Hz
    max_step_seconds: float = 60.0  # to open a file or decode a block of it; 0: no limit, for workers, which have one


@dataclass(frozen=True)
class FeatureConfig(Section):
    """From waveform to MFCC. The first seven fields determine the log-mel frames."""

    NAME: ClassVar[str] = "features"
    sample_rate: int = setting(22_050, "[1, 384000]")  # Hz
    n_fft: int = setting(2048, "[2, 65536]")  # samples in a frame
    hop_length: int = setting(914, "[1, 65536]")  # samples; as the only published frames of all of GTZAN
    n_mels: int = setting(128, "[1, 1024]")  # bands of the mel filter bank
    n_mels_kept: int = setting(112, "[1, 1024]")  # the lowest of them: up to 7.2 kHz, below most encoders' low-pass
    fmin: float = setting(0.0, "[0, inf)")  # Hz
    fmax: float = setting(11_025.0, "(0, inf)")  # Hz

    top_db: float = setting(80.0, "(0, 1000]")  # dB from the maximum down to the floor
    norm_seconds: float = setting(30.0, "[1, 3600]")  # the context of a window that determines the maximum
    n_mfcc: int = setting(64, "[1, 1024]")
    window_seconds: float = setting(10.0, "[1, 600]")  # the network's input

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.hop_length <= self.n_fft, "features.hop_length must be at most n_fft")
        _check(self.n_mels_kept <= self.n_mels, "features.n_mels_kept must be at most n_mels")
        _check(self.n_mfcc <= self.n_mels_kept, "features.n_mfcc must be at most n_mels_kept")
        nyquist = self.sample_rate / 2
        _check(self.fmin < self.fmax <= nyquist, f"features.fmax must be above fmin, and at most {nyquist:g} Hz")
        _check(self.norm_seconds >= self.window_seconds, "features.norm_seconds must be at least window_seconds")
        _check(1 <= self.window_frames <= MAX_FRAMES, f"features.window_seconds must be at most {MAX_FRAMES} frames")

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate / self.hop_length

    @property
    def window_frames(self) -> int:
        return round(self.window_seconds * self.frames_per_second)

    @property
    def norm_frames(self) -> int:
        return round(self.norm_seconds * self.frames_per_second)

    def log_mel_settings(self) -> dict[str, Any]:
        """The settings that log-mel frames depend on: equal settings give interchangeable frames."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)[:7]}


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network. `filters`, `time_pool` and `freq_pool` have one entry for each convolution block."""

    NAME: ClassVar[str] = "model"
    architecture: str = setting("cnn_lstm+lda", ARCHITECTURES)
    ensemble_size: int = setting(1, "[1, inf)")  # CNN-LSTMs; every second one has the other cepstral_mean_norm
    cepstral_mean_norm: bool = setting(False)  # subtract each MFCC's mean over the window (Furui 1981)
    inverse_dct_bands: int = setting(64, "[0, inf)")  # outputs of a first layer that starts as inverse DCT; 0: none
    stem_kernel: tuple[int, ...] = setting((9, 8), "[1, inf)")  # frames and bands of the first convolution
    filters: tuple[int, ...] = setting((32, 64, 64, 96), "[1, inf)")
    time_pool: tuple[int, ...] = setting((4, 2, 2, 1), "[1, inf)")
    freq_pool: tuple[int, ...] = setting((4, 2, 2, 4), "[1, inf)")
    squeeze_excite: bool = setting(True)  # in each block (Hu et al. 2018)
    lstm_units: int = setting(64, "[1, inf)")
    lstm_layers: int = setting(1, "[1, inf)")
    bidirectional: bool = setting(True)
    temporal_pooling: str = setting("attention", ("attention", "mean", "last"))  # of the LSTM's outputs
    dropout: float = setting(0.3, "[0, 1)")
    lda_shrinkage: float = setting(0.3, "(0, 1]")  # of the LDA's covariance
    tagger_c: float = setting(
        0.02, "[0, inf)"
    )  # inverse L2 penalty of "tagger" and "frozen"; 0: chosen by cross-validation
    tagger_expert: str = setting("", None)  # the source with an expert of its own; "": none

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = len(self.filters) == len(self.time_pool) == len(self.freq_pool) > 0
        _check(blocks, "model.filters, .time_pool and .freq_pool need one entry for each block")
        _check(len(self.stem_kernel) == 2, "model.stem_kernel needs two sizes: frames, bands")

    @property
    def branches(self) -> list[str]:
        """The names in `architecture`."""
        return self.architecture.split("+")

    @property
    def uses_keras(self) -> bool:
        """Whether a branch is a Keras network, which is trained from random weights."""
        return "frozen" not in self.branches

    @property
    def uses_tagger(self) -> bool:
        """Whether a branch is a classifier of the tagger's embeddings (tagger.py)."""
        return "tagger" in self.branches


@dataclass(frozen=True)
class AugmentConfig(Section):
    """Augmentation of training windows; 0 turns one off. LDA uses pitch and tempo only."""

    NAME: ClassVar[str] = "augment"
    pitch_semitones: float = setting(2.0, "[0, 24]")  # up or down
    time_stretch: float = setting(0.15, "[0, 0.9)")  # up to this share faster or slower
    lowpass_prob: float = setting(0.15, "[0, 1]")  # of a random low-pass filter
    comb_filter_prob: float = setting(0.15, "[0, 1]")  # of a comb filter, as from two microphones
    noise_floor_prob: float = setting(0.25, "[0, 1]")  # of a random noise floor
    dynamic_range: float = setting(0.15, "[0, inf)")  # up to this share more or less dynamic range
    random_eq_db: float = setting(6.0, "[0, inf)")  # standard deviation of a random smooth equalizer
    noise_std_db: float = setting(3.0, "[0, inf)")  # largest standard deviation of noise on each cell
    time_mask: float = setting(0.15, "[0, 1)")  # up to this share of a window, twice
    freq_mask: float = setting(0.15, "[0, 1)")  # up to this share of the bands, twice
    mixup: float = setting(0.0, "[0, inf)")  # alpha of the Beta distribution


@dataclass(frozen=True)
class TrainConfig(Section):
    """Training of each network, and calibration."""

    NAME: ClassVar[str] = "training"
    seed: int = setting(42, "[0, 4294967295]")  # of the first network; each further one adds 1
    epochs: int = setting(60, "[1, inf)")
    pretrain_epochs: int = setting(0, "[0, inf)")  # of contrastive pretraining before these
    batch_size: int = setting(32, "[1, inf)")
    crops_per_track: int = setting(3, "[1, inf)")  # drawn anew in each epoch
    learning_rate: float = setting(2e-3, "(0, inf)")  # at its peak; decays as a half cosine
    weight_decay: float = setting(1e-3, "[0, inf)")
    label_smoothing: float = setting(0.0, "[0, 1)")
    calibration_folds: int = setting(0, "[0, 100]")  # by artist; 0: calibrate on the validation tracks
    quantize: bool = setting(False)  # convolutions to int8
    genres: tuple[str, ...] = setting((), None)  # tracks of other genres aren't used; empty: all genres
    label_weights: tuple[float, ...] = setting((1.0, 1.0, 1.0), "[0, 1]")  # of labels of high, medium, low confidence
    genre_balance: float = setting(0.0, "[0, 1]")  # 1: genres are drawn equally often; 0: tracks are
    calibration_balance: float = setting(0.0, "[0, 1]")  # the same for the weights of tracks in calibration
    bias_penalty: float = setting(30.0, "[0, inf)")  # added to the summed log loss for a calibration bias of 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(len(self.label_weights) == 3, "training.label_weights needs three weights: high, medium, low")
        _check(self.label_weights[0] > 0, "training.label_weights: that of high must be above 0")


@dataclass(frozen=True)
class Config:
    """All settings of a training run."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: TrainConfig = field(default_factory=TrainConfig)


def from_dict(kind: type[T], values: dict[str, Any], base: T | None = None, prefix: str = "") -> T:
    """Build the configuration `kind` from a dict, over `base` where that is given.

    Raises ConfigError for an unknown name (with the nearest known one) or a value of the wrong type.
    """
    current = vars(base or kind())
    converted = dict(current)
    for name, value in values.items():
        if name not in current:
            close = difflib.get_close_matches(name, current, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"there are: {', '.join(current)}"
            raise ConfigError(f"unknown setting {prefix}{name}; {hint}")
        converted[name] = _convert(value, current[name], prefix + name)
    return kind(**converted)


def _convert(value: Any, current: Any, name: str) -> Any:
    """The `value`, as a value of the same type as the `current` one."""
    kind = type(current)
    if isinstance(current, Section) and isinstance(value, dict):
        return from_dict(kind, value, current, f"{name}.")
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, current[0] if current else "", name) for item in value)
    wanted = {tuple: "list"}.get(kind, "section" if isinstance(current, Section) else kind.__name__)
    _check(type(value) is kind, f"{name} must be of type {wanted}, not {value!r}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain, JSON-ready values; `from_dict` reads it back."""
    return cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))


def presets() -> list[str]:
    """The names of the configurations that are part of the package; "default" is that of the fields above."""
    return ["default", *sorted(path.stem for path in CONFIGS.glob("*.toml"))]


def load_config(source: str | None = None, settings: tuple[str, ...] = ()) -> Config:
    """A preset, by its name, or a TOML file, over the defaults; then settings such as "training.epochs=50".

    Raises ConfigError for a source that can't be read, and for settings that are unknown or out of range.
    """
    config = Config()
    if source not in (None, "default"):
        path = CONFIGS / f"{source}.toml" if source in presets() else Path(str(source))
        config = from_dict(Config, _read_toml(path), config)
    sections: dict[str, Any] = {}  # of all settings at once, as some are only valid together
    for section, name, value in map(_parse_setting, settings):
        sections.setdefault(section, {})[name] = value
    return from_dict(Config, sections, config)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, and not a preset: {', '.join(presets())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: can't be read as TOML: {error}") from None


def _parse_setting(text: str) -> tuple[str, str, Any]:
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    _check(bool(equals and dot and key), f"{text!r}: settings look like training.epochs=50")
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, key, value.strip()
