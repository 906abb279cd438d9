"""The OpenAPI description: what routes take and give back, with examples."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from musicclass.web.problems import MEDIA_TYPE, Problem

ABOUT = """Send music, get its genre: over the whole track and along its time line, with a confidence that means
something, and "unknown" where the model doesn't know. Nothing that is sent is kept."""

EXAMPLE: dict[str, Any] = {
    "file": "song.mp3",
    "genre": "jazz",
    "best_guess": "jazz",
    "confidence": 0.73,
    "familiarity": 0.97,
    "probabilities": {"jazz": 0.73, "blues": 0.27},
    "duration": 20.0,
    "segments": [
        {
            "start": 0.0,
            "end": 10.0,
            "genre": "jazz",
            "best_guess": "jazz",
            "confidence": 0.85,
            "probabilities": {"jazz": 0.85, "blues": 0.15},
        },
        {"start": 10.0, "end": 20.0, "genre": None, "best_guess": None, "confidence": 0.0, "probabilities": {}},
    ],
    "model": "gtzan",
}


class AnswerSegment(BaseModel):
    """A stretch of the track; genre and best_guess are null where it is silent."""

    start: float = Field(description="seconds")
    end: float = Field(description="seconds")
    genre: str | None
    best_guess: str | None
    confidence: float
    probabilities: dict[str, float]


class Picture(BaseModel):
    """Grey values, row by row, the highest band first, in base64; the brightest is the loudest, 0 is 80 dB below."""

    width: int
    height: int
    data: str


class AnswerExplanation(BaseModel):
    """What the answer rests on: the log-odds of `genre` that are lost when a cell is covered."""

    words: str
    genre: str
    seconds: list[tuple[float, float]] = Field(description="the stretches that matter most")
    region: tuple[float, float] = Field(description="Hz, the band that matters most")
    times: list[float] = Field(description="edges of the cells in seconds, n + 1")
    frequencies: list[float] = Field(description="edges of the cells in Hz, m + 1")
    weights: list[list[float]] = Field(description="n rows of m")
    log_mel: Picture


class Answer(BaseModel):
    """The genre of one file: what `musicclass predict --json` prints, and what else was asked for."""

    model_config = {"json_schema_extra": {"example": EXAMPLE}}

    file: str
    genre: str = Field(description='"unknown" where the model is not fit to say')
    best_guess: str
    confidence: float = Field(description="the probability of best_guess, lower where familiarity is below 0.5")
    familiarity: float = Field(description="0.5 at the edge of the music that the model knows, near 0 far from it")
    probabilities: dict[str, float]
    duration: float = Field(description="seconds that were heard")
    segments: list[AnswerSegment]
    model: str
    peaks: list[float] | None = None
    explanation: AnswerExplanation | None = None


class Answers(BaseModel):
    """Of a form's files, in order."""

    files: list[Answer | Problem]


class JobState(BaseModel):
    """How far a file is."""

    id: str
    href: str
    file: str
    state: str = Field(description="waiting, hearing or done")
    share: float = Field(description="how much of the file has been read, 0 to 1")
    answer: Answer | None = None
    problem: Problem | None = None


class JobList(BaseModel):
    """Jobs of a form's files, in order, or of the one file that was the body."""

    jobs: list[JobState]


class Health(BaseModel):
    """Whether the server hears."""

    status: str
    model: str
    version: str
    workers: int
    waiting: int


def _problems(**which: str) -> dict[int | str, dict[str, Any]]:
    """Responses by status (`_404="..."`), and those that every route may give."""
    always = {"_401": "the token is missing or wrong", "_403": "asked by another site's page",
              "_421": "asked by a name that isn't this machine's"}  # fmt: skip
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(key[1:]): {"description": why, "content": content} for key, why in {**always, **which}.items()}


_AUDIO = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "required": ["files"], "properties": {
    "files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}}}}  # fmt: skip

PREDICT: dict[str, Any] = {
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": _AUDIO, "audio/*": _AUDIO, "multipart/form-data": _FORM},
        }
    },
    "response_model": None,
    "responses": {
        200: {"description": "An answer, or, for a form, a list", "model": Answer | Answers},
        202: {"description": "Jobs, for wait=false", "model": JobList},
        **_problems(
            _400="not a form",
            _408="nothing came for a while",
            _413="larger than the server takes",
            _415="not sent as audio",
            _422="no file could be used; the reason is in detail",
            _503="busy; see Retry-After",
        ),
    },
}
JOB: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {
            "description": "The job; or events named by its state, each with the job as data",
            "model": JobState,
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **_problems(_404="no such job", _422="no job's id"),
    },
}
DROP: dict[str, Any] = {"responses": _problems(_404="no such job", _422="no job's id")}
MODEL: dict[str, Any] = {"response_model": dict[str, Any], "responses": _problems()}
NETWORK: dict[str, Any] = {
    "response_model": None,
    "responses": {200: {"description": "ONNX", "content": {"application/octet-stream": _AUDIO}}, **_problems()},
}
_SONG = {
    "row": 7,
    "path": "/music/album/song.mp3",
    "genre": "jazz",
    "best_guess": "jazz",
    "confidence": 0.73,
    "duration": 201.5,
    "name": "album / song.mp3",
    "correction": None,
}
_READ = "the corrections can't be read or kept"
LIBRARY: dict[str, Any] = {
    "response_model": dict[str, Any],
    "responses": _problems(_422="no such order or number", _507=_READ),
}
SONG: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {"description": "The song", "content": {"application/json": {"example": _SONG}}},
        **_problems(_404="no such song", _409="the row is another song's", _422="no row, or no genre", _507=_READ),
    },
}
SOUND: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {"description": "The file", "content": {"audio/*": _AUDIO}},
        206: {"description": "A range of it", "content": {"audio/*": _AUDIO}},
        **_problems(_404="no such song, or out of reach", _416="no such range", _422="no row"),
    },
}
CORRECTIONS: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {"description": "track, genre, told", "content": {"text/csv": {"schema": {"type": "string"}}}},
        **_problems(_507=_READ),
    },
}
HEALTH: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {"description": "It does", "model": Health},
        503: {"description": "It is starting", "model": Health},
        **_problems(),
    },
}
METRICS: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {"description": "text", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **_problems(),
    },
}
