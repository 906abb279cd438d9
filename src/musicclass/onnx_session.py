"""Run ONNX graphs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime

DOMAINS = (b"", b"ai.onnx")  # of operators
MAX_BYTES = 2 << 30  # of a graph's tensors in a trial
MAX_SECONDS = 20.0  # of a trial
MESSAGES = {  # of onnx.proto -> field numbers of the messages in it that can hold tensors or operators
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
NODE_DOMAIN, EXTERNAL_DATA, DATA_LOCATION = ("node", 7), ("tensor", 13), ("tensor", 14)


def create_session(content: bytes, trial: bool = False) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one thread, so that results don't depend on the number of cores.

    With `trial`, its tensors have at most MAX_BYTES, and errors aren't logged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4 if trial else 3
    if trial:
        _limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_limited(session: onnxruntime.InferenceSession, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
    """Run a graph for at most MAX_SECONDS. Raises onnxruntime's exceptions, without a log."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(MAX_SECONDS, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return list(session.run(outputs, inputs, options))
    finally:
        timer.cancel()


@functools.cache
def _limit_memory() -> None:
    """Register the allocator of trials, which all of them in this process share."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    limits = onnxruntime.OrtArenaCfg({"max_mem": MAX_BYTES, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(info, limits)


def check_self_contained(content: bytes) -> None:
    """Raise ValueError where a graph, which may be hostile, names other files or has operators of other domains.

    The messages are read as they are encoded, as onnxruntime opens those files while it loads a graph.
    """
    try:
        _check_message(memoryview(content), "model")
    except (IndexError, RecursionError):
        raise ValueError("not an ONNX graph") from None


def _check_message(message: memoryview, kind: str) -> None:
    for field, value in _fields(message):
        if (kind, field) == EXTERNAL_DATA or ((kind, field) == DATA_LOCATION and value):
            raise ValueError("its weights are in another file (external data); save them in the graph")
        if (kind, field) == NODE_DOMAIN and bytes(value or b"") not in DOMAINS:
            raise ValueError(f"it has an operator of the domain {bytes(value)!r}; use those of ONNX")
        if field in MESSAGES.get(kind, {}):
            _check_message(memoryview(value), MESSAGES[kind][field])


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of the fields of an encoded protobuf message: bytes or integers; None for fixed sizes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value: Any = None
        if key & 7 == 0:
            value, position = _varint(message, position)
        elif key & 7 == 2:
            size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        elif key & 7 in (1, 5):
            position += 8 if key & 7 == 1 else 4
        else:
            raise ValueError("not an ONNX graph")
        yield key >> 3, value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
