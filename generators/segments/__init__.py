"""Proposers: functions that find segments in an image without annotations."""

from generators.segments.felzenszwalb import felzenszwalb
from generators.segments.grouping import grouping
from generators.segments.labels import labels
from generators.segments.proposer import Proposer
from generators.segments.slic import slic

PROPOSERS: dict[str, Proposer] = {
    "felzenszwalb": felzenszwalb, "slic": slic, "grouping": grouping, "labels": labels
}  # fmt: skip

__all__ = ["PROPOSERS", "Proposer"]
