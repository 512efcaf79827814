"""The recorded map of objects against their pixels, by registration."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.check.samples import Contradiction, Sample
from segswap.data.shards import Members
from segswap.files.images import ImageError, read_image
from segswap.fitting.registration import MAX_STANDARD_ERROR, Found, register

# Of the promise: target pixels of an image 480 px wide, and of smaller ones.
MEDIAN_ERROR, WORST_ERROR, WIDTH = 0.1, 0.5, 480
CERTAIN = 3  # standard errors by which a measured error must exceed the limit
# Of details that are the same; those of unrelated pictures are near 0. Mixed gradients are partly
# the background's.
LEAST_AGREEMENT = 0.5
MIXED = ("poisson-mixed",)


@dataclass
class Registrations:
    """The registrations of many objects.

    Attributes:
        pairs: how many pairs were looked at.
        objects: how many objects.
        measured: the registrations of those that have texture enough; scale: target pixels of an
            image 480 px wide are so many of theirs, at least 1.
    """

    pairs: int = 0
    objects: int = 0
    measured: list[tuple[Found, float]] = field(default_factory=list)

    def add(self, members: Members, sample: Sample) -> list[Contradiction]:
        """Register a sample's objects; returns what contradicts the map."""
        self.pairs += 1
        images = {f"{side}_mask": mask for side, mask in sample.masks.items()}
        try:
            for side in ("source", "target"):
                images[side] = read_image(members[f"{side}.jpg"], name=side, exif=False)
        except (ImageError, KeyError):
            return []  # the images' check says so
        if not sample.masks or len({image.shape[:2] for image in images.values()}) > 1:
            return []  # likewise
        scale = max(1.0, images["source"].shape[1] / WIDTH)
        wrong = []
        blends = {item["label"]: item["blend"] for item in sample.record.get("objects", [])}
        for label, matrix in sample.matrices.items():
            self.objects += 1
            found = register(images, label, matrix / matrix[2, 2]) if _sane(matrix) else None
            if found and found.standard_error <= MAX_STANDARD_ERROR * scale:
                self.measured.append((found, scale))
            wrong += _contradictions(found, label, scale, blends[label] in MIXED)
        return wrong

    def median_too_large(self) -> list[Contradiction]:
        """What contradicts the promise about all objects together."""
        median = self.as_dict()["median_px"]
        if median is None or median <= MEDIAN_ERROR:
            return []
        return [(f"a median position error of {median:.3f} px", f"at most {MEDIAN_ERROR} px")]

    def as_dict(self) -> dict[str, Any]:
        """Counts, and the position error in target pixels of an image 480 px wide."""
        worst = [one.worst / scale for one, scale in self.measured]
        median, p95 = None, None
        if worst:
            errors = np.concatenate([one.errors / scale for one, scale in self.measured])
            median, p95 = np.percentile(errors, [50, 95]).tolist()
        return {
            "pairs": self.pairs, "objects": self.objects, "measured": len(worst),
            "median_px": median, "p95_px": p95, "max_px": max(worst, default=None),
        }  # fmt: skip

    def __str__(self) -> str:
        if not self.measured:
            return f"in {self.pairs} pairs; none has texture enough to be registered"
        found = self.as_dict()
        return (
            f"in {self.pairs} pairs; {found['measured']} have texture enough: median "
            f"{found['median_px']:.3f} px, 95% {found['p95_px']:.3f}, max {found['max_px']:.3f}"
        )


def _sane(matrix: NDArray[np.float64]) -> bool:
    """Whether a map enlarges or shrinks no more than pixels can tell; masks tell about others."""
    area = abs(np.linalg.det(matrix[:2, :2]))
    return bool(1e-3 * matrix[2, 2] ** 2 < area < 1e3 * matrix[2, 2] ** 2)


def _contradictions(
    found: Found | None, label: int, scale: float, mixed: bool
) -> list[Contradiction]:
    """What contradicts an object's map; nothing where the object is too small or has no texture."""
    limit = WORST_ERROR * scale
    if found is None:
        return []
    textured = min(found.least_error, found.standard_error) <= MAX_STANDARD_ERROR * scale
    if textured and not mixed and found.agreement < LEAST_AGREEMENT:
        return [
            (
                f"object {label}'s pixels in source and target do not agree along the map "
                f"(correlation {found.agreement:.2f})",
                f"the same pixels (at least {LEAST_AGREEMENT})",
            )
        ]
    certain = found.standard_error <= MAX_STANDARD_ERROR * scale
    if certain and found.worst - CERTAIN * found.standard_error > limit:
        return [
            (
                f"object {label}'s pixels are {found.worst:.2f} px off the map, with a standard "
                f"error of {found.standard_error:.2f} px",
                f"at most {limit:.2g} px",
            )
        ]
    return []
