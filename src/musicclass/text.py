"""Numbers in words."""

from __future__ import annotations


def plural(n: int, noun: str) -> str:
    """Such as "1 file" or "2,000 files"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def percent(probability: float) -> str:
    """Such as "71%"; never 100%, since no prediction is certain."""
    return ">99%" if probability >= 0.995 else f"{probability:.0%}"
