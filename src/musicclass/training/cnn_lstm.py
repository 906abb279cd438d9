"""The CNN-LSTM on MFCCs, in Keras.

Convolutions summarize the spectrum of short spans of time, an LSTM reads these in order, attention averages its
outputs, and a dense layer classifies:

    >>> build_cnn_lstm(n_mfcc=64, n_genres=10, config=ModelConfig()).summary()

Shapes in comments are (batch, time, frequency, channels), for windows of 241 frames (10 s), 64 MFCCs and the default
configuration.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from musicclass.config import ModelConfig
from musicclass.features import dct_matrix

BATCH_NORM_MOMENTUM = 0.9  # epochs are short: 60 batches on GTZAN


def build_cnn_lstm(n_mfcc: int, n_genres: int, config: ModelConfig, name: str = "cnn_lstm") -> keras.Model:
    """MFCC windows (batch, n_frames, n_mfcc), of any number of frames -> logits (batch, n_genres)."""
    mfcc = keras.Input((None, n_mfcc), name="mfcc")  # (batch, 241, 64)
    x = _to_spectrogram(mfcc, config)  # (batch, 241, 64, 1)
    for i in range(len(config.filters)):
        x = _conv_block(x, i, config)  # (batch, 61, 16, 32), (batch, 31, 8, 64), (batch, 16, 4, 64), (batch, 16, 1, 96)
    x = layers.Reshape((-1, x.shape[2] * x.shape[3]), name="frequency_to_channels")(x)  # (batch, 16, 96)
    x = layers.Dropout(config.dropout, name="conv_dropout")(x)
    x = _lstm(x, config)  # (batch, 16, 128)
    x = _temporal_pooling(x, config.temporal_pooling)  # (batch, 128)
    x = layers.Dropout(config.dropout, name="pooling_dropout")(x)
    return keras.Model(mfcc, layers.Dense(n_genres, name="logits")(x), name=name)  # (batch, 10)


def _to_spectrogram(mfcc: Any, config: ModelConfig) -> Any:
    """MFCCs (batch, time, n_mfcc) -> standardized image (batch, time, n_bands, 1).

    Truncating the DCT has smoothed the spectral envelope; a learned inverse DCT turns the MFCCs back into bands,
    because convolutions over frequency need neighbors that are related, as bands are and coefficients aren't.
    """
    n_bands, x = mfcc.shape[-1], mfcc
    if config.cepstral_mean_norm:
        x = layers.Subtract(name="cepstral_mean_norm")([x, keras.ops.mean(x, axis=1, keepdims=True)])
    if config.inverse_dct_bands:
        kernel = keras.initializers.Constant(dct_matrix(config.inverse_dct_bands, n_bands).T)
        n_bands = config.inverse_dct_bands
        x = layers.Dense(n_bands, use_bias=False, kernel_initializer=kernel, name="inverse_dct")(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="input_norm")(x)
    return layers.Reshape((-1, n_bands, 1), name="image")(x)


def _conv_block(x: Any, i: int, config: ModelConfig) -> Any:
    """Convolution, batch normalization, ReLU, squeeze and excitation; shorter in time and frequency by its pool."""
    filters, pool, name = config.filters[i], (config.time_pool[i], config.freq_pool[i]), f"conv{i + 1}"
    if i == 0:  # strided instead of pooled: at full resolution, 32 filters would cost more than all the rest
        x = layers.Conv2D(filters, config.stem_kernel, strides=pool, padding="same", use_bias=False, name=name)(x)
    else:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
        x = layers.MaxPooling2D(pool, padding="same", name=f"{name}_pool")(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    return _squeeze_excite(x, filters, name) if config.squeeze_excite else x


def _squeeze_excite(x: Any, filters: int, name: str) -> Any:
    """Scale each channel by a function of all channels' means over the window (Hu et al. 2018)."""
    mean = layers.GlobalAveragePooling2D(name=f"{name}_squeeze")(x)  # (batch, channels)
    hidden = layers.Dense(max(8, filters // 4), activation="relu", name=f"{name}_hidden")(mean)
    scale = layers.Dense(filters, activation="sigmoid", name=f"{name}_excite")(hidden)
    return layers.Multiply(name=f"{name}_scale")([x, layers.Reshape((1, 1, filters), name=f"{name}_gate")(scale)])


def _lstm(x: Any, config: ModelConfig) -> Any:
    """(batch, time, channels) -> (batch, time, units), or (batch, units) of the last step for "last" pooling."""
    for i in range(config.lstm_layers):
        every_step = i < config.lstm_layers - 1 or config.temporal_pooling != "last"
        lstm: Any = layers.LSTM(config.lstm_units, return_sequences=every_step)
        name = f"lstm{i + 1}"
        lstm = layers.Bidirectional(lstm, name=name) if config.bidirectional else lstm
        x = lstm(x)
    return x


def _temporal_pooling(x: Any, method: str) -> Any:
    """(batch, time, units) -> (batch, units)."""
    if method == "mean":
        return layers.GlobalAveragePooling1D(name="mean_over_time")(x)
    if method == "attention":
        hidden = layers.Dense(32, activation="tanh", name="attention_hidden")(x)
        weights = layers.Softmax(axis=1, name="attention")(layers.Dense(1, name="attention_score")(hidden))
        return layers.Flatten(name="attended")(layers.Dot(axes=1, name="weighted_sum")([weights, x]))
    return x


def build_baseline(n_mfcc: int, n_genres: int, config: ModelConfig, name: str = "baseline") -> keras.Model:
    """A plain CNN-LSTM, for comparison only: MFCC windows (batch, n_frames, n_mfcc) -> logits (batch, n_genres).

    As in many tutorials, the sequence that its LSTM reads runs through frequency within time, so a step is neither.
    """
    mfcc = keras.Input((None, n_mfcc), name="mfcc")
    x = layers.BatchNormalization(momentum=0.9, name="input_norm")(mfcc)
    x = layers.Reshape((-1, n_mfcc, 1), name="image")(x)
    for i, (filters, *pool) in enumerate(zip(config.filters, config.time_pool, config.freq_pool, strict=True), 1):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(pool, padding="same", name=f"conv{i}_pool")(x)
    x = layers.Reshape((-1, config.filters[-1]), name="flatten_time_and_frequency")(x)
    for i in range(1, config.lstm_layers + 1):
        x = layers.LSTM(config.lstm_units, return_sequences=i < config.lstm_layers, name=f"lstm{i}")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    return keras.Model(mfcc, layers.Dense(n_genres, name="logits")(x), name=name)
