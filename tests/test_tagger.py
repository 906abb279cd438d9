"""The tagger: its graph against a reference in numpy and musicnn's own embeddings; patches; gain and silence."""

from __future__ import annotations

import librosa
import numpy as np
import onnx
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from musicclass import tagger
from musicclass.audio import load
from musicclass.config import FeatureConfig
from musicclass.features import track_features
from musicclass.onnx_session import create_session
from musicclass.tagger import MAX_PATCHES, PATCH_SAMPLES, SAMPLE_RATE, PatchSampler
from musicclass.windows import window_embeddings
from tests.conftest import SHARED, make_music, make_noise

TAPS = 128  # samples before and after a patch that its resampling takes
needs_tagger = pytest.mark.skipif(not tagger.available(), reason="built without the tagger: python hatch_build.py")


def sample(samples, cuts=(), max_patches=MAX_PATCHES):
    sampler = PatchSampler(max_patches)
    blocks = np.split(samples, sorted(cuts))
    assert all(a is b for a, b in zip(sampler.observe(blocks), blocks, strict=True))
    return sampler.patches()


@settings(max_examples=30)
@given(n_samples=st.integers(1, 40 * PATCH_SAMPLES), cuts=st.lists(st.integers(0, 40 * PATCH_SAMPLES), max_size=8))
def test_patches_are_evenly_spread_and_bounded_whatever_the_blocks(n_samples, cuts):
    samples = np.arange(n_samples, dtype=np.float32)
    patches, starts = sample(samples, cuts, max_patches=6)
    n_whole = n_samples // PATCH_SAMPLES
    assert len(patches) == len(starts) == min(6, max(1, n_whole))
    firsts = np.round(starts * SAMPLE_RATE).astype(int)
    assert firsts[0] == 0 and (firsts % PATCH_SAMPLES == 0).all()
    steps = np.diff(firsts) // PATCH_SAMPLES
    assert not len(steps) or 1 <= steps.max() <= 2 * steps.min()
    assert n_samples - firsts[-1] < n_samples / 4 + 2 * PATCH_SAMPLES
    for patch, first in zip(patches, firsts, strict=True):
        np.testing.assert_array_equal(patch, np.resize(samples[first : first + PATCH_SAMPLES], PATCH_SAMPLES))


def test_embeddings_of_windows_are_means_of_the_nearest_patches():
    starts = np.array([0.0, 3.0, 6.0, 20.0])
    values = 7 * np.eye(4, tagger.EMBEDDING_SIZE, dtype=np.float32)
    patches = tagger.TrackEmbeddings(values, np.stack([starts, starts + 3], axis=1))
    times = np.array([[0, 5], [5, 10], [10, 15], [15, 20], [20, 25]], float)
    embeddings = window_embeddings(times, patches)
    assert embeddings.shape == (5, 200) and embeddings.dtype == np.float32
    shares = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]) / 3**0.5
    np.testing.assert_allclose(embeddings[:, :4], shares, rtol=1e-6)
    assert not window_embeddings(times, None).any()


def reference_log_mel(samples):
    """musicnn's front end, with soxr and librosa's filters: (n_frames, 96) of samples at 22,050 Hz."""
    signal = soxr.resample(samples, SAMPLE_RATE, 16_000)
    frames = np.lib.stride_tricks.sliding_window_view(signal, 512)[::256]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    return np.log10(10_000 * power @ librosa.filters.mel(sr=16_000, n_fft=512, n_mels=96).T + 1)


@needs_tagger
def test_log_mel_of_the_graph_equals_the_reference():
    model = onnx.load(tagger.TAGGER)
    model.graph.output.append(onnx.helper.make_tensor_value_info("log_mel", onnx.TensorProto.FLOAT, None))
    session = create_session(model.SerializeToString())
    for sound in (make_music(4), 0.1 * make_noise(4)):
        (frames,) = session.run(["log_mel"], {"samples": sound[None, :PATCH_SAMPLES]})
        expected = reference_log_mel(sound[TAPS : PATCH_SAMPLES - TAPS])[: frames.shape[1]]
        difference = np.abs(frames[0, 2 : len(expected) - 2] - expected[2:-2])  # soxr pads with zeros
        assert difference.max() < 0.03


@needs_tagger
def test_gain_does_not_change_embeddings_and_silence_is_dropped():
    music = np.concatenate([make_music(20), np.zeros(3 * PATCH_SAMPLES, np.float32)])
    loud, quiet = (tagger.embed(*sample(gain * music)) for gain in (np.float32(1), np.float32(0.25)))
    np.testing.assert_allclose(quiet.embeddings, loud.embeddings, atol=1e-4)
    np.testing.assert_array_equal(quiet.times, loud.times)
    assert len(loud.embeddings) == 7 and loud.embeddings.shape[1] == 200 and loud.tag_logits.shape == (7, 50)
    assert loud.times[1].tolist() == pytest.approx([PATCH_SAMPLES / SAMPLE_RATE, 2 * PATCH_SAMPLES / SAMPLE_RATE])
    assert tagger.embed(*sample(np.zeros(100, np.float32))) is None
    assert tagger.embed(*sample(np.zeros(0, np.float32))) is None


@needs_tagger
def test_short_audio_is_repeated_to_one_patch():
    short = make_noise(1)
    features = track_features([short], FeatureConfig(), with_tagger=True)
    assert features.duration == 1 and len(features.patches.embeddings) == 1
    repeated = tagger.embed(*sample(np.resize(short, PATCH_SAMPLES)))
    np.testing.assert_allclose(features.patches.embeddings, repeated.embeddings, atol=1e-5)
    assert track_features([short], FeatureConfig()).patches is None


def test_without_the_tagger_there_is_one_warning_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(tagger, "TAGGER", tmp_path / "tagger.onnx")
    tagger.warn_if_missing.cache_clear()
    with pytest.warns(UserWarning, match=r"python hatch_build\.py") as warnings:
        tagger.warn_if_missing()
        tagger.warn_if_missing()
    tagger.warn_if_missing.cache_clear()
    assert len(warnings) == 1
    assert track_features([make_noise(4)], FeatureConfig(), with_tagger=True).patches is None


AUDIO, REFERENCE = SHARED / "gtzan" / "genres_original", SHARED / "musicnn_features.npz"
N_FRAMES, HOP = 187, 256  # of a patch, at 16 kHz


@needs_tagger
@pytest.mark.skipif(not (AUDIO.exists() and REFERENCE.exists()), reason="needs audio and features in ../shared/data")
def test_embeddings_and_tags_equal_published_ones():
    """Means over the ten patches of a clip, without scaling, by musicnn's own graph (float16)."""
    with np.load(REFERENCE) as file:
        names = ("ids", "penultimate_unscaled", "tags_unscaled")
        expected = {str(i): (e, t) for i, e, t in zip(*(file[name] for name in names), strict=True)}
    clips = [path for path in sorted(AUDIO.glob("*/*")) if path.stem in expected][::12]
    starts = [round((i * N_FRAMES * HOP - HOP) * SAMPLE_RATE / 16_000) for i in range(10)]
    for path in clips:
        samples = np.pad(load(path, SAMPLE_RATE), 1024)
        firsts = [1024 - TAPS + start for start in starts]
        patches = np.stack([samples[first : first + PATCH_SAMPLES] for first in firsts])
        outputs = tagger._session().run(None, {"samples": patches})
        embeddings, logits = (values.mean(axis=0) for values in outputs)
        np.testing.assert_allclose(embeddings, expected[path.stem][0], atol=0.03)
        np.testing.assert_allclose(probability(logits), probability(np.float64(expected[path.stem][1])), atol=0.005)


def probability(logits):
    return 1 / (1 + np.exp(-logits))


def test_tags_are_those_that_stand_out_against_an_average_song():
    mean, std = tagger.tag_statistics()
    assert len(mean) == len(std) == len(tagger.TAGS) == 50 and (std > 0).all()
    logits = mean + std * (0.9 * np.sin(np.arange(50)))
    patches = tagger.TrackEmbeddings(np.zeros((2, 200), np.float32), np.zeros((2, 2)), np.float32([logits, logits]))
    assert tagger.characteristic_tags(patches) == {}
    names = ["metal", "jazz", "electronic"]
    indices = [tagger.TAGS.index(name) for name in names]
    patches.tag_logits[0, indices] += 2 * (np.array([6, 8, 4]) * std[indices])
    tags = tagger.characteristic_tags(patches)
    assert list(tags) == ["jazz", "metal", "electronic"]
    assert list(tags.values()) == pytest.approx(list(probability(patches.tag_logits.mean(axis=0)[indices])[[1, 0, 2]]))
    patches.tag_logits[:] = mean + 9 * std
    assert len(tagger.characteristic_tags(patches)) == tagger.MAX_TAGS
    assert tagger.characteristic_tags(patches._replace(tag_logits=None)) == {} == tagger.characteristic_tags(None)


def test_normalized_embeddings_have_length_one_and_keep_their_order():
    embeddings = np.random.default_rng(0).normal(0, 2, (5, tagger.EMBEDDING_SIZE)).astype(np.float32)
    normalized = tagger.normalize(embeddings)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(normalized.argsort(axis=1), embeddings.argsort(axis=1))
    np.testing.assert_allclose(tagger.normalize(3 * embeddings), normalized, rtol=1e-5)
    assert not tagger.normalize(np.zeros_like(embeddings)).any()
