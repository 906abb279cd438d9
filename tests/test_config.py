"""Settings: presets, TOML, overrides, and errors that name the setting."""

from __future__ import annotations

import json

import pytest

from musicclass.config import Config, FeatureConfig, from_dict, load_config, presets, to_dict
from musicclass.errors import ConfigError


@pytest.mark.parametrize("name", presets())
def test_presets_survive_json(name):
    config = load_config(name)
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    assert hash(config.features) == hash(load_config(name).features)


def test_settings_override_a_toml_file_that_overrides_the_defaults(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[training]\nepochs = 7\n[features]\nwindow_seconds = 5\n")
    config = load_config(str(path), ("training.epochs=9", "model.filters=[8, 8, 8, 8]", "model.temporal_pooling=mean"))
    assert (config.training.epochs, config.features.window_seconds) == (9, 5.0)
    assert (config.model.filters, config.model.temporal_pooling) == ((8, 8, 8, 8), "mean")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epoch=5", "did you mean training.epochs"),
        ("modle.lstm_units=5", "did you mean model"),
        ("augment.zzz=5", "there are: pitch_semitones"),
        ("training.epochs=many", "type int"),
        ("training.epochs=0", r"training.epochs must be in \[1, inf\), not 0"),
        ("training.epochs=true", "type int"),
        ("training.learning_rate=nan", r"\(0, inf\), not nan"),
        ("training.quantize=1", "type bool"),
        ("training=5", "settings look like"),
        ("epochs=5", "settings look like"),
        ("model.filters=[8]", "one entry for each block"),
        ("model.filters=[1.5, 2, 3, 4]", "type int"),
        ("model.filters=[0, 2, 3, 4]", r"\[1, inf\)"),
        ("model.architecture=transformer", "one of cnn_lstm"),
        ("model.dropout=1.5", r"\[0, 1\)"),
        ("training.label_weights=[1.0, 0.5]", "three weights: high, medium, low"),
        ("training.label_weights=[0.0, 1.0, 1.0]", "of high must be above 0"),
        ("features.n_mfcc=500", "at most n_mels_kept"),
        ("features.fmax=20000", "at most 11025 Hz"),
    ],
)
def test_invalid_settings_raise_errors_with_a_remedy(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, (setting,))


def test_invalid_files_raise_errors_that_name_them(tmp_path):
    with pytest.raises(ConfigError, match="not a preset: default, baseline"):
        load_config(str(tmp_path / "missing.toml"))
    path = tmp_path / "broken.toml"
    for content, message in (("[training\n", r"broken\.toml"), ("training = 3\n", "type section")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=message):
            load_config(str(path))


def test_log_mel_settings_are_those_that_frames_depend_on():
    assert FeatureConfig(n_mfcc=20).log_mel_settings() == FeatureConfig().log_mel_settings()
    assert FeatureConfig(hop_length=512).log_mel_settings() != FeatureConfig().log_mel_settings()
