"""Links and predictions of collections that were never photographed: motifs at known places."""

from dataclasses import dataclass, field

import numpy as np

from segswap import geometry
from segswap.discovery.links import Links
from segswap.models.prediction import Prediction

GRID = 20  # cells along each side


def random_links(images: int, rows: int, columns: int, rng: np.random.Generator) -> Links:
    """Links between most pairs of images: near-identity maps with noise of cells, masks of 0 to 1,
    some places without an answer.
    """
    pairs = [(a, b) for a in range(images) for b in range(a + 1, images) if rng.random() < 0.8]
    shape = (len(pairs), rows, columns)
    centres = geometry.cell_centres(rows, columns)
    maps = [
        (centres + rng.normal(0, 0.8 / max(rows, columns), (*shape, 2))).astype(np.float16)
        for _ in range(2)
    ]
    for positions in maps:
        positions[rng.random(shape) < 0.05] = np.nan
    masks = [rng.beta(3, 1, shape).astype(np.float16) for _ in range(2)]
    return Links(
        np.array(pairs, np.int32).reshape(-1, 2), np.zeros(len(pairs), bool), *maps, *masks
    )


@dataclass
class Planted:
    """A collection in which motifs lie at known places, and what a method would say of its pairs.

    Attributes:
        motifs: of each image, by the motif's name, the 3x3 map from the motif's unit square to the
            image, normalised.
        false: pairs of images that the method wrongly takes to share something.
        mirrored: (image, motif) that lie in the image flipped left to right.
        noise: standard deviation of positions, in cells.
    """

    motifs: list[dict[str, np.ndarray]]
    false: set[tuple[int, int]] = field(default_factory=set)
    mirrored: set[tuple[int, str]] = field(default_factory=set)
    noise: float = 0.3

    def inside(self, image: int, motif: str) -> np.ndarray:
        """bool (GRID, GRID): the cells whose centres lie in a motif."""
        centres = geometry.cell_centres(GRID, GRID)
        unit = geometry.transform_points(np.linalg.inv(self.motifs[image][motif]), centres)
        return geometry.inside(unit)

    def predict(self, pairs: list[tuple[int, int]], flipped: bool) -> list[Prediction]:
        """The method: a motif is found where both images have it the same way round."""
        return [self._pair(a, b, flipped) for a, b in pairs]

    def _pair(self, a: int, b: int, flipped: bool) -> Prediction:
        rng = np.random.default_rng([a, b, flipped])
        centres = geometry.cell_centres(GRID, GRID)
        sides = [np.clip(rng.random((GRID, GRID, 2)), 0, 1) for _ in range(2)]
        masks = [rng.uniform(0, 0.1, (GRID, GRID)) for _ in range(2)]
        flip = geometry.translation(1, 0) @ geometry.scaling(-1, 1)
        if (a, b) in self.false and not flipped:
            self._false(rng, centres, sides, masks)
        for motif in sorted(self.motifs[a].keys() & self.motifs[b].keys()):
            ways = ((a, motif) in self.mirrored) != ((b, motif) in self.mirrored)
            if ways != flipped:
                continue
            target = self._placed(b, motif)
            there = (flip @ target if flipped else target) @ np.linalg.inv(self._placed(a, motif))
            back = np.linalg.inv(there)
            shown = self.inside(b, motif)
            for side, matrix, cells in (
                (0, there, self.inside(a, motif)), (1, back, shown[:, ::-1] if flipped else shown)
            ):  # fmt: skip
                noise = rng.normal(0, self.noise / GRID, (GRID, GRID, 2))
                sides[side][cells] = (geometry.transform_points(matrix, centres) + noise)[cells]
                masks[side][cells] = rng.uniform(0.95, 1, cells.sum())
        return Prediction(
            *(side.astype(np.float32) for side in sides),
            *(mask.astype(np.float32) for mask in masks),
        )

    def _placed(self, image: int, motif: str) -> np.ndarray:
        """The motif's map into the image, with the mirroring of the motif itself."""
        within = geometry.translation(1, 0) @ geometry.scaling(-1, 1)
        matrix = self.motifs[image][motif]
        return matrix @ within if (image, motif) in self.mirrored else matrix

    def _false(self, rng, centres, sides, masks) -> None:
        """A square of the one image goes to a square of the other, both ways."""
        size = 6
        (r, c), (s, d) = rng.integers(0, GRID - size, (2, 2))
        here = slice(r, r + size), slice(c, c + size)
        there = slice(s, s + size), slice(d, d + size)
        sides[0][here], sides[1][there] = centres[there], centres[here]
        masks[0][here] = masks[1][there] = 0.98


def collection(
    images: int = 60, motifs: str = "abc", each: int = 12, seed: int = 0, false: int = 0
) -> Planted:
    """Motifs in `each` images, some images with two of them, the rest with none, and false matches
    between images that share nothing.
    """
    rng = np.random.default_rng(seed)
    planted: list[dict[str, np.ndarray]] = [{} for _ in range(images)]
    for number, motif in enumerate(motifs):
        # Two motifs at most in an image, one in each half.
        half = number % 2
        free = [i for i in range(images) if len(planted[i]) < 2
                and half not in [motifs.index(m) % 2 for m in planted[i]]]  # fmt: skip
        for image in rng.choice(free, each, replace=False):
            scale = rng.uniform(0.35, 0.48)
            x, y = rng.uniform(0, 0.49 - scale) + half / 2, rng.uniform(0, 1 - scale)
            planted[image][motif] = geometry.translation(x, y) @ geometry.scaling(scale, scale)
    unlike = [(a, b) for a in range(images) for b in range(a + 1, images)
              if not planted[a].keys() & planted[b].keys()]  # fmt: skip
    chosen = rng.choice(len(unlike), false, replace=False)
    return Planted(planted, {unlike[n] for n in chosen})
