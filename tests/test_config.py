from __future__ import annotations

import json

import pytest

from musicclass.config import PRESETS, Config, FeatureConfig, from_dict, load_config, to_dict
from musicclass.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    assert from_dict(Config, json.loads(json.dumps(to_dict(PRESETS[name])))) == PRESETS[name]


def test_toml_then_settings(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[training]\nepochs = 7\n[features]\nwindow_seconds = 5\n")
    config = load_config(str(path), ("training.epochs=9", "model.filters=[8, 8, 8, 8]", "model.summary=mean"))
    assert config.training.epochs == 9
    assert config.features.window_seconds == 5.0
    assert config.model.filters == (8, 8, 8, 8)
    assert config.model.summary == "mean"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epoch=5", "did you mean training.epochs"),
        ("modle.lstm_units=5", "did you mean model"),
        ("training.epochs=many", "type int"),
        ("training.epochs=0", "must be positive"),
        ("training.epochs=true", "type int"),
        ("training=5", "settings look like"),
        ("epochs=5", "settings look like"),
        ("model.filters=[8]", "one entry for each block"),
        ("model.filters=[1.5, 2, 3, 4]", "type int"),
        ("features.n_mfcc=500", "between 1 and n_bands"),
        ("features.fmax=20000", "half the sample rate"),
        ("model.dropout=1.5", r"\[0, 1\)"),
    ],
)
def test_wrong_settings_are_refused_with_help(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, (setting,))


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(str(tmp_path / "none.toml"))
    bad = tmp_path / "bad.toml"
    bad.write_text("[training\n")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_config(str(bad))


def test_log_mel_settings_leave_out_what_comes_after():
    assert FeatureConfig(n_mfcc=20).log_mel_settings() == FeatureConfig().log_mel_settings()
    assert FeatureConfig(hop_length=512).log_mel_settings() != FeatureConfig().log_mel_settings()
