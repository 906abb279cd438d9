"""Converts musicnn's published checkpoint to ONNX, with its front end: samples -> embeddings and logits of 50 tags.

musicnn (J. Pons, X. Serra, arXiv:1909.06654) was trained on 241,000 songs of the Million Song Dataset. Its weights come
from the package musicnn on PyPI (ISC licence); they aren't committed. Used by hatch_build.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
INPUT_RATE, RATE = 22_050, 16_000  # Hz: of the samples, and of musicnn; 441 samples become 320
BLOCK_IN, BLOCK_OUT = 441, 320
N_FFT, HOP, N_MELS, N_FRAMES = 512, 256, 96, 187
N_BINS = N_MELS // 2 + 1  # of a DFT over the bands
TIMBRAL_FRAMES = 7  # of the convolutions over many bands
TAPS = 128  # of the resampling filter, on each side, at INPUT_RATE
CUTOFF, KAISER_BETA = 7_652, 14.0  # Hz; passes up to 7.3 kHz, as soxr does: musicnn depends on its highest bands
N_BLOCKS = math.ceil(((N_FRAMES - 1) * HOP + N_FFT) / BLOCK_OUT)
N_SAMPLES = (N_BLOCKS - 1) * BLOCK_IN + BLOCK_IN + 2 * TAPS
TABLE_MAGIC = 0xDB4775248B80FB57
FLOAT32 = 1  # TensorFlow's DT_FLOAT
BATCH_NORM_EPSILON = 1e-3
BLOCK_FILTERS = 16  # of ONNX Runtime: between operators on multiples of this, it keeps its own memory layout

Weights = dict[str, Any]


def read_checkpoint(index: bytes, data: bytes) -> Weights:
    """The float32 variables of a TensorFlow checkpoint (V2): `index` is a LevelDB table, `data` the tensors.

    Raises ValueError when it isn't one.
    """
    if struct.unpack("<Q", index[-8:])[0] != TABLE_MAGIC:
        raise ValueError("not the index of a TensorFlow checkpoint")
    footer = index[-48:]
    position = 0
    for _ in range(2):  # the meta index
        _, position = _varint(footer, position)
    weights = {}
    for _, handle in _block(index, *_handle(footer, position)):
        for key, value in _block(index, *_handle(handle, 0)):
            entry = dict(_protobuf(value)) if key else {}
            if entry.get(1) == FLOAT32:
                shape = [dict(_protobuf(size)).get(1, 0) for field, size in _protobuf(entry.get(2, b"")) if field == 2]
                start = entry.get(4, 0)
                weights[key.decode()] = np.frombuffer(data[start : start + entry[5]], "<f4").reshape(shape)
    return weights


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number in LEB128, and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return value, position


def _handle(content: bytes, position: int) -> tuple[int, int]:
    """Offset and size of a block."""
    offset, position = _varint(content, position)
    return offset, _varint(content, position)[0]


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block; a key shares a prefix with the one before it."""
    if table[offset + size]:
        raise ValueError("a compressed block")
    body, key, position = table[offset : offset + size], b"", 0
    n_restarts = struct.unpack("<I", body[-4:])[0]
    while position < size - 4 * (n_restarts + 1):
        sizes = []
        for _ in range(3):
            number, position = _varint(body, position)
            sizes.append(number)
        shared, unshared, length = sizes
        key = key[:shared] + body[position : position + unshared]
        position += unshared
        yield key, body[position : position + length]
        position += length


def _protobuf(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a Protocol Buffers message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            value: Any
            value, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        yield tag >> 3, value


class _Graph:
    """Nodes and constants, added one by one; each call returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def __call__(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output


def build_tagger(weights: Weights) -> bytes:
    """Samples (n_patches, N_SAMPLES) at INPUT_RATE -> embeddings (n_patches, 200), tag_logits (n_patches, 50)."""
    g = _Graph()
    scale, shift = _batch_norm(weights, "batch_normalization")
    x = g("Add", g("Mul", _front_end(g), g.constant(scale)), g.constant(shift))
    spectra, image = _spectra(g, x), g("Unsqueeze", x, g.ints(1))
    timbral = [_timbral_filters(g, spectra, weights, i) for i in range(2)]
    temporal = [_temporal_filters(g, image, weights, i) for i in range(2, 5)]
    front = g("Concat", *timbral, *temporal, axis=1)  # (n_patches, 561, 187)
    layers, x = [front], front
    for i in range(3):
        y = _convolve_over_time(g, x, weights, i)
        x = g("Add", y, x) if i else y
        layers.append(x)
    _classify(g, g("Concat", *layers, axis=1), weights)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        g.nodes,
        "tagger",
        [value("samples", TensorProto.FLOAT, ["n_patches", N_SAMPLES])],
        [
            value("embeddings", TensorProto.FLOAT, ["n_patches", 200]),
            value("tag_logits", TensorProto.FLOAT, ["n_patches", 50]),
        ],
        initializer=g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _front_end(g: _Graph) -> str:
    """Samples (n_patches, N_SAMPLES) -> log-mel (n_patches, 187, 96): log10(10000 x + 1) of the mel power."""
    signal = g("Unsqueeze", "samples", g.ints(1))
    phases = g("Conv", signal, g.constant(_resampling_filters()[:, None]), strides=[BLOCK_IN])  # (n, 320, blocks)
    resampled = g("Reshape", g("Transpose", phases, perm=[0, 2, 1]), g.ints(0, -1, 1))
    angle = [2 * math.pi * i / N_FFT for i in range(N_FFT)]
    hann = g.constant([0.5 - 0.5 * math.cos(x) for x in angle])
    spectrum = g("STFT", resampled, g.constant(HOP, np.int64), hann, g.constant(N_FFT, np.int64))
    frames = g("Slice", spectrum, g.ints(0), g.ints(N_FRAMES), g.ints(1))
    power = g("ReduceSum", g("Mul", frames, frames), g.ints(3), keepdims=0)
    mel = g("MatMul", power, g.constant(_mel_filterbank().T))
    log = g("Log", g("Add", g("Mul", mel, g.constant([10_000])), g.constant([1])))
    return g("Mul", log, g.constant([1 / math.log(10)]), name="log_mel")


def _resampling_filters() -> Any:
    """(320, 441 + 2 TAPS): a windowed sinc for each of the 320 output samples of a block."""
    filters = np.zeros((BLOCK_OUT, BLOCK_IN + 2 * TAPS))
    for phase in range(BLOCK_OUT):
        center = TAPS + phase * BLOCK_IN / BLOCK_OUT
        for tap in range(math.ceil(center - TAPS), math.floor(center + TAPS) + 1):
            offset = tap - center
            x = 2 * math.pi * CUTOFF / INPUT_RATE * offset
            sinc = math.sin(x) / x if x else 1.0
            window = float(np.i0(KAISER_BETA * math.sqrt(max(0.0, 1 - (offset / TAPS) ** 2))) / np.i0(KAISER_BETA))
            filters[phase, tap] = 2 * CUTOFF / INPUT_RATE * sinc * window
    return filters


def _mel_filterbank() -> Any:
    """Slaney's triangular filters of equal area, (96, 257), up to 8 kHz."""
    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    mels = [top * i / (N_MELS + 1) for i in range(N_MELS + 2)]
    edges = np.array([m * 200 / 3 if m < 15 else 1000 * math.exp((m - 15) * math.log(6.4) / 27) for m in mels])
    bins = np.arange(N_FFT // 2 + 1) * (RATE / N_FFT)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _batch_norm(weights: Weights, name: str) -> tuple[Any, Any]:
    """Scale and shift (n_channels,) of a batch normalization."""
    gamma, beta, mean, variance = (
        weights[f"{name}/{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return scale, beta - mean * scale


def _spectra(g: _Graph, x: str) -> tuple[str, str]:
    """x (n_patches, 187, 96) -> DFT over bands, for the real and the imaginary parts of products with filters.

    Both are (49, n_patches * 187, 14): bins, frames, and of each of the seven frames around one, two components.
    """
    angle = 2 * np.pi * np.arange(N_MELS)[:, None] * np.arange(N_BINS) / N_MELS
    real, imaginary = np.cos(angle), -np.sin(angle)
    padded = g("Pad", x, g.ints(0, TIMBRAL_FRAMES // 2, 0, 0, TIMBRAL_FRAMES // 2, 0))
    around = g.constant(np.arange(N_FRAMES)[:, None] + np.arange(TIMBRAL_FRAMES), np.int64)

    def arrange(*components: Any) -> str:
        spectrum = g("MatMul", padded, g.constant(_rounded(np.concatenate(components, axis=1))))
        frames = g("Gather", spectrum, around, axis=1)
        frames = g("Reshape", frames, g.ints(0, N_FRAMES, TIMBRAL_FRAMES, 2, N_BINS))
        return g("Reshape", g("Transpose", frames, perm=[4, 0, 1, 2, 3]), g.ints(N_BINS, -1, 2 * TIMBRAL_FRAMES))

    return arrange(real, imaginary), arrange(imaginary, -real)


def _timbral_filters(g: _Graph, spectra: tuple[str, str], weights: Weights, i: int) -> str:
    """A convolution over 7 frames and many bands, its maximum over bands: (n_patches, 204, 187).

    By Fourier transform over the bands, in half the time. As positions p are counted from their middle, the values at p
    and -p are the even part plus and minus the odd part, of which only even + |odd| matters for the maximum.
    """
    kernel, sign = _kernel(weights, i)
    n_filters, _, _, width = kernel.shape
    n_positions = N_MELS - width + 1
    bins = np.arange(N_BINS)
    shift = np.exp(-2j * np.pi * bins * (n_positions - 1) / 2 / N_MELS)
    spectrum = np.fft.rfft(kernel[:, 0] * sign[:, None, None], N_MELS) * shift  # (n_filters, 7, 49)
    filters = np.stack([spectrum.real, spectrum.imag], axis=2).transpose(3, 1, 2, 0)
    filters = g.constant(_rounded(filters.reshape(N_BINS, 2 * TIMBRAL_FRAMES, n_filters)))
    angle = 2 * np.pi * bins * (np.arange((n_positions + 1) // 2)[:, None] + (n_positions - 1) % 2 / 2) / N_MELS
    norm = np.where(bins % (N_BINS - 1), 2, 1) / N_MELS
    even, odd = (
        g("MatMul", g.constant(_rounded(basis * norm)), g("Reshape", g("MatMul", part, filters), g.ints(N_BINS, -1)))
        for part, basis in zip(spectra, (np.cos(angle), -np.sin(angle)), strict=True)
    )
    x = g("ReduceMax", g("Add", even, g("Abs", odd)), axes=[0], keepdims=0)
    x = g("Transpose", g("Reshape", x, g.ints(-1, N_FRAMES, n_filters)), perm=[0, 2, 1])
    return _activate(g, x, weights, i, sign)


def _temporal_filters(g: _Graph, x: str, weights: Weights, i: int) -> str:
    """A convolution over many frames and one band, its maximum over bands: (n_patches, 51, 187)."""
    kernel, sign = _kernel(weights, i)
    n_frames = kernel.shape[2]
    unused = -len(kernel) % BLOCK_FILTERS
    filters = np.pad(kernel * sign[:, None, None, None], [(0, unused), (0, 0), (0, 0), (0, 0)])
    x = g("Conv", x, g.constant(filters), pads=[(n_frames - 1) // 2, 0, n_frames // 2, 0])
    x = g("Squeeze", g("MaxPool", x, kernel_shape=[1, N_MELS]), g.ints(3))
    return _activate(g, g("Slice", x, g.ints(0), g.ints(len(kernel)), g.ints(1)), weights, i, sign)


def _kernel(weights: Weights, i: int) -> tuple[Any, Any]:
    """Filters (n_filters, 1, n_frames, n_bands), and the signs (n_filters,) of the scales that follow them."""
    kernel = weights[f"{_convolution(i)}/kernel"].transpose(3, 2, 0, 1)
    scale, _ = _batch_norm(weights, f"batch_normalization_{i + 1}")
    return kernel, np.where(scale < 0, -1.0, 1.0)


def _activate(g: _Graph, x: str, weights: Weights, i: int, sign: Any) -> str:
    """Bias, ReLU and batch normalization of the maxima (n_patches, n_filters, 187) of filters multiplied by `sign`.

    In musicnn, the maximum comes last. It may come first, which is faster, if filters whose scale is negative are
    negated: max(s * relu(a) + b) = |s| * min(max(-a), 0) + b for these.
    """
    scale, shift = _batch_norm(weights, f"batch_normalization_{i + 1}")
    x = g("Add", x, g.constant((weights[f"{_convolution(i)}/bias"] * sign)[:, None]))
    largest = np.finfo(np.float32).max
    x = g("Max", x, g.constant(np.where(sign < 0, -largest, 0)[:, None]))
    x = g("Min", x, g.constant(np.where(sign < 0, 0, largest)[:, None]))
    return g("Add", g("Mul", x, g.constant(np.abs(scale)[:, None])), g.constant(shift[:, None]))


def _rounded(values: Any) -> Any:
    """Sums and sines of float64 differ in their last bits between machines; rounded, they are the same everywhere."""
    return np.round(values * 2**24) / 2**24 + 0.0


def _convolution(i: int) -> str:
    """The name of the weights of the i-th convolution."""
    return f"conv2d_{i}" if i else "conv2d"


def _convolve_over_time(g: _Graph, x: str, weights: Weights, i: int) -> str:
    name = _convolution(i + 5)
    kernel = weights[f"{name}/kernel"][:, :, 0].transpose(2, 1, 0)  # (n_filters, n_inputs, 7)
    x = g("Conv", x, g.constant(kernel), g.constant(weights[f"{name}/bias"]), pads=[3, 3])
    scale, shift = _batch_norm(weights, f"batch_normalization_{i + 6}")
    return g("Add", g("Mul", g("Relu", x), g.constant(scale[:, None])), g.constant(shift[:, None]))


def _classify(g: _Graph, x: str, weights: Weights) -> None:
    """Maximum and mean over time (n_patches, 753), interleaved by musicnn, then two dense layers."""
    scale, shift = _batch_norm(weights, "batch_normalization_9")
    kernel = weights["dense/kernel"].astype(np.float64)  # (1506, 200)
    bias = weights["dense/bias"] + (shift[:, None] * kernel).sum(axis=0)
    kernel *= scale[:, None]
    maximum = g("MatMul", g("ReduceMax", x, axes=[2], keepdims=0), g.constant(kernel[0::2]))
    mean = g("MatMul", g("ReduceMean", x, axes=[2], keepdims=0), g.constant(kernel[1::2]))
    x = g("Relu", g("Add", g("Add", maximum, mean), g.constant(bias)))
    scale, shift = _batch_norm(weights, "batch_normalization_10")
    x = g("Add", g("Mul", x, g.constant(scale)), g.constant(shift), name="embeddings")
    product = g("MatMul", x, g.constant(weights["dense_1/kernel"]))
    g("Add", product, g.constant(weights["dense_1/bias"]), name="tag_logits")
