"""What a network's answer is worth: calibrated probabilities, and whether it heard music of the kind it knows.

A network names a genre for a dial tone as firmly as for a song. So there is familiarity beside probability: how near
the answer, all logits together, lies to those that tracks of one genre get, and how near the sound lies to the music
that was learnt, which the network has no part in. What is unfamiliar is unknown, and its confidence low.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.optimize
from scipy.special import expit

from musicclass.features import Array

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

N_MFCC = 8  # the lowest coefficients: the spectrum's rough shape; with more, unheard music seems strange too
BIAS_PENALTY = 30  # tracks' worth of log loss for a bias of 1: few tracks move none
STEEPNESS = 6  # how fast familiarity falls with the distance of a sound, where that is all there is
STRANGE = 8  # how much that distance, squared once more, takes from the nearness of an answer
SLOPE = 0.3  # how fast the log-odds of familiarity rise with nearness
SHRINKAGE = 0.3  # of the covariance of logits, towards logits that vary each for itself
KNOWN = 0.5  # familiarity, at least, of what is told
UNFAMILIAR = 0.05  # share of held-out music, by answers, which is told to be unknown
ENOUGH = 5  # held-out tracks of each genre; with fewer, nobody knows how answers to them vary
TURNS = 5  # in which tracks are left out


@dataclass(frozen=True)
class Familiarity:
    """How near a sound lies to the music a model learnt from, by its MFCCs' statistics (Mahalanobis distance)."""

    centre: Floats  # (n,)
    precision: Floats  # (n, n), inverse covariance
    half: float  # the squared distance within which 99% of held-out tracks lie

    @classmethod
    def fit(cls, learnt: list[Array], held_out: list[Array]) -> Familiarity:
        """From the windows of the tracks that a model learnt from, and of other tracks of that kind."""
        known = np.concatenate([statistics(windows) for windows in learnt])
        spread = known.var(axis=0) * 1e-3 + 1e-9  # keeps few or equal windows from infinite precision
        covariance = np.cov(known.T) + np.diag(spread)
        fitted = cls(known.mean(axis=0), np.linalg.inv(covariance), half=1.0)
        distances = [fitted.distances(windows).mean() for windows in held_out]
        return cls(fitted.centre, fitted.precision, half=max(1e-9, float(np.quantile(distances, 0.99))))

    def distances(self, windows: Array) -> Floats:
        """Squared distance of each of the MFCC windows (n_windows, n_frames, n_mfcc), in units of `half`."""
        off = statistics(windows) - self.centre
        squared: Floats = np.einsum("wi,ij,wj->w", off, self.precision, off)
        return squared / self.half


@dataclass(frozen=True)
class Answers:
    """How the logits of a track, their mean over windows, lie to those of held-out tracks, genre by genre."""

    means: Floats  # (n_genres, n_genres), of tracks of a genre in each row
    within: Floats  # (n_genres, n_genres), inverse covariance about these
    centre: Floats  # (n_genres,), of all tracks
    overall: Floats  # (n_genres, n_genres), inverse covariance about that
    edge: float = 0.0  # the nearness that all but UNFAMILIAR of held-out tracks have

    @classmethod
    def fit(cls, logits: Floats, genres: Ints) -> Answers:
        """From logits (n_tracks, n_genres) of tracks that the network never trained on; each genre has some."""
        means = np.stack([logits[genres == genre].mean(axis=0) for genre in range(logits.shape[1])])
        centre = logits.mean(axis=0)
        return cls(means, _precision(logits - means[genres], len(means)), centre, _precision(logits - centre, 1))

    def nearness(self, logits: Floats, distances: Floats) -> Floats:
        """How much nearer logits (n, n_genres) lie to one genre's than to all, less the `distances` (n,) of the sounds.

        A relative Mahalanobis distance (Ren et al. 2021), of logits instead of embeddings.
        """
        off, all_off = logits[:, None] - self.means, logits - self.centre
        nearest = np.einsum("ngi,ij,ngj->ng", off, self.within, off).min(axis=1)
        found: Floats = np.einsum("ni,ij,nj->n", all_off, self.overall, all_off) - nearest - STRANGE * distances**2
        return found

    def familiarity(self, logits: Floats, distances: Floats) -> Floats:
        """0.5 at the edge of the music that the model knows, 0 far from it."""
        return np.asarray(expit(SLOPE * (self.nearness(logits, distances) - self.edge)))


def _precision(off: Floats, n_means: int) -> Floats:
    """Inverse covariance of deviations (n, n_genres) from `n_means` means, shrunk, so that few tracks do no harm."""
    covariance = off.T @ off / max(1, len(off) - n_means)
    shrunk = (1 - SHRINKAGE) * covariance + np.diag(SHRINKAGE * np.diag(covariance) + 1e-6)
    return np.asarray(np.linalg.inv(shrunk), np.float64)


def turns(genres: Ints) -> Ints:
    """The turn in which each track is left out, so that each turn leaves out as many of every genre."""
    found = np.zeros(len(genres), int)
    for genre in np.unique(genres):
        found[genres == genre] = np.arange((genres == genre).sum()) % TURNS
    return found


def statistics(windows: Array) -> Floats:
    """Mean, log deviation and log deviation of the steps of each window's lowest MFCCs: (n_windows, 3 * n)."""
    low = np.float64(windows[:, :, :N_MFCC])
    spreads = [np.log(values.std(axis=1) + 0.1) for values in (low, np.diff(low, axis=1))]
    return np.concatenate([low.mean(axis=1), *spreads], axis=1)


class Told(NamedTuple):
    """Of one track, as a whole and by its windows."""

    probabilities: Floats  # (n_genres,), sum to 1
    familiarity: float
    by_window: Floats  # (n_windows, n_genres), probabilities
    familiar: Floats  # (n_windows,)

    @property
    def confidence(self) -> float:
        return float(_sure(self.probabilities, self.familiarity))

    @property
    def sure(self) -> Floats:
        """Confidence by window (n_windows,)."""
        return np.asarray(_sure(self.by_window, self.familiar))


@dataclass(frozen=True)
class Confidence:
    """Turns windows and their logits into probabilities and confidence; without arguments, leaves them as they are."""

    temperature: float = 1.0  # logits are divided by it (Guo et al. 2017)
    biases: Floats | float = 0.0  # (n_genres,), added then: more for genres whose new artists are passed over
    familiarity: Familiarity | None = None
    answers: Answers | None = None  # where too few tracks were held out, the distance of the sound is all there is

    @classmethod
    def fit(cls, learnt: list[Array], held_out: list[Array], logits: list[Array], truth: Ints) -> Confidence:
        """From windows of the training tracks, and from windows, logits and genres of tracks that are none of these."""
        familiarity = Familiarity.fit(learnt, held_out)
        distances = [familiarity.distances(windows) for windows in held_out]
        return cls.calibrated(familiarity, distances, logits, truth, turns(truth))

    @classmethod
    def calibrated(
        cls, familiarity: Familiarity, distances: list[Floats], logits: list[Array], truth: Ints, turn: Ints
    ) -> Confidence:
        """From distances (n_windows,), logits (n_windows, n_genres) and genre of each held-out track.

        `turn` (n_tracks,): those that are left out together, to know how near tracks lie that nothing was fitted to.
        """
        fitted = cls(*fit_scale(logits, truth), familiarity)
        means, far = np.stack([x.mean(axis=0) for x in logits]), np.array([x.mean() for x in distances])
        if np.bincount(truth, minlength=means.shape[1]).min() < ENOUGH:
            return fitted
        near = np.zeros(len(truth))
        for left in (turn == k for k in np.unique(turn)):
            near[left] = Answers.fit(means[~left], truth[~left]).nearness(means[left], far[left])
        edge = float(np.quantile(near, UNFAMILIAR))
        return replace(fitted, answers=replace(Answers.fit(means, truth), edge=edge))

    def track(self, windows: Array, logits: Array) -> Told:
        """What a track's windows tell, each and together: by the means of their logits and of their distances."""
        together = logits.mean(axis=0, keepdims=True)
        distances = self.familiarity.distances(windows) if self.familiarity is not None else np.zeros(len(windows))
        (familiarity,) = self._familiar(together, distances.mean(keepdims=True))
        familiar = self._familiar(logits, distances)
        return Told(self.probabilities(together[0]), float(familiarity), self.probabilities(logits), familiar)

    def _familiar(self, logits: Array, distances: Floats) -> Floats:
        if self.answers is None:
            return share(distances)
        return self.answers.familiarity(np.asarray(logits, np.float64), distances)

    def fits(self, n_genres: int) -> bool:
        """Whether it was made for logits of so many genres."""
        return np.size(self.biases) in (1, n_genres) and (self.answers is None or len(self.answers.means) == n_genres)

    def probabilities(self, logits: Array) -> Floats:
        """Of each genre: the softmax of logits (..., n_genres), scaled."""
        return softmax(logits / self.temperature + self.biases)

    def to_dict(self) -> dict[str, Any]:
        """For the card."""
        plain: dict[str, Any] = {"temperature": self.temperature, "biases": np.asarray(self.biases).tolist()}
        for name in PARTS:
            if part := getattr(self, name):
                plain[name] = {key: np.asarray(value).tolist() for key, value in vars(part).items()}
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Confidence:
        """From a card. Raises KeyError, TypeError or ValueError for what is none."""
        parts = {key: _part(kind, plain[key]) for key, kind in PARTS.items() if key in plain}
        return cls(float(plain["temperature"]), np.array(plain.get("biases", 0.0), np.float64), **parts)


PARTS = {"familiarity": Familiarity, "answers": Answers}


def _part(kind: Any, plain: dict[str, Any]) -> Any:
    """A `kind` of numbers and arrays, from a card. Raises KeyError, TypeError or ValueError for what is none."""
    values = {field.name: np.array(plain[field.name], np.float64) for field in fields(kind)}
    n = len(values["centre"])
    for name, value in values.items():
        if value.shape not in ((), (n,), (n, n)):
            raise ValueError(f"{name}: {value.shape} doesn't fit {n}")
    return kind(**{name: value if value.ndim else float(value) for name, value in values.items()})


def fit_temperature(logits: list[Array], truth: Ints) -> float:
    """The temperature with the lowest log loss of tracks' mean logits; logits (n_windows, n_genres) by track."""
    means = np.stack([item.mean(axis=0) for item in logits])
    found = scipy.optimize.minimize_scalar(
        lambda log_temperature: _log_loss(means / np.exp(log_temperature), truth), bounds=(-3, 3), method="bounded"
    )
    return float(np.exp(found.x))


def fit_scale(logits: list[Array], truth: Ints) -> tuple[float, Floats]:
    """Temperature and biases (n_genres,) with the lowest log loss of tracks' mean logits, large biases penalized.

    Bias-corrected temperature scaling (Alexandari et al. 2020).
    """
    means = np.stack([item.mean(axis=0) for item in logits])

    def loss(x: Floats) -> float:
        penalty = BIAS_PENALTY * (x[1:] ** 2).sum() / len(truth)
        return _log_loss(means / np.exp(x[0]) + x[1:], truth) + float(penalty)

    n = means.shape[1]
    found = scipy.optimize.minimize(loss, np.zeros(1 + n), method="L-BFGS-B", bounds=[(-3, 3)] * (1 + n)).x
    return float(np.exp(found[0])), found[1:]


def _log_loss(logits: Array, truth: Ints) -> float:
    return -float(np.log(softmax(logits)[np.arange(len(truth)), truth] + 1e-12).mean())


def share(distances: Floats) -> Floats:
    """From 1, as near as the music that was learnt, over 0.5 at a distance of 1, to 0, far off."""
    return 1 / (1 + distances**STEEPNESS)


def _sure(probabilities: Floats, familiarity: Any) -> Any:
    """Confidence: the best of probabilities (..., n_genres), as long as it is for music that the model knows."""
    return probabilities.max(axis=-1) * np.minimum(1, familiarity / KNOWN)


def is_known(familiarity: float, confidence: float, min_confidence: float | None) -> bool:
    """Whether a genre is named: by familiarity, or by a least confidence, where somebody wants that instead."""
    return familiarity >= KNOWN if min_confidence is None else confidence >= min_confidence


def softmax(logits: Array) -> Floats:
    """Probabilities (..., n_genres) of logits."""
    powers = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities
