"""Proposers: functions that find segments in an image without annotations."""

from generators.segments.felzenszwalb import felzenszwalb
from generators.segments.proposer import Proposer

PROPOSERS: dict[str, Proposer] = {"felzenszwalb": felzenszwalb}

__all__ = ["PROPOSERS", "Proposer", "felzenszwalb"]
