"""Compose a pair: draw objects, copy them into a background, and keep what both images show."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from generators.composition.blending import BLENDS
from generators.composition.framing import room, square, tight
from generators.composition.placement import Box, layouts, outline, place
from generators.composition.recipe import Look, Recipe
from generators.sources.index import Index, Pool, Segment
from generators.styles.style import Styler, style_pairs
from segswap import geometry
from segswap.data.pair import Pair, PairObject
from segswap.files.images import ImageError, read_hashed_image
from segswap.files.stopwatch import stage

STRIDE = 16
MAX_DRAWS = 500
Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class RejectedDraw(Exception):  # noqa: N818 - nothing went wrong
    """A draw that makes no acceptable pair; its text is the reason, counted in the manifest.

    `image` names an input that turned out to be unusable, with what is wrong with it.
    """

    def __init__(self, reason: str, image: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.image = image


def generate_pair(
    pool: Pool, recipe: Recipe | Sequence[Recipe], rng: np.random.Generator, *,
    look: Look | None = None, index: int = 0, key: tuple[int, int] = (0, 0),
    rejected: Callable[[RejectedDraw], None] | None = None,
) -> Pair:  # fmt: skip
    """A pair: draws until one is acceptable.

    Args:
        pool: images, segments and backgrounds to draw from; `Pool.whole` takes all of an index.
        recipe: how many objects, how they are changed; of several, each draw takes one, all alike.
        rng: draws everything.
        look: size, blending, style; by default `Look()`.
        index: the pair's index in its split.
        key: what `rng` was seeded with after the run's seed: split and index.
        rejected: told of every draw that was not acceptable.

    Raises:
        RuntimeError: none of 500 draws was acceptable.
    """
    recipes = [recipe] if isinstance(recipe, Recipe) else recipe
    reasons: Counter[str] = Counter()
    for _ in range(MAX_DRAWS):
        chosen = recipes[int(rng.integers(len(recipes)))]
        try:
            return draw_pair(pool, chosen, look or Look(), rng, index=index, key=key)
        except RejectedDraw as rejection:
            reasons[str(rejection)] += 1
            if rejected:
                rejected(rejection)
    raise RuntimeError(
        f"pair {index}: none of {MAX_DRAWS} draws was acceptable "
        f"({dict(reasons.most_common())}); add images, or loosen the recipe"
    )


def draw_pair(
    pool: Pool, recipe: Recipe, look: Look, rng: np.random.Generator, *, index: int = 0,
    key: tuple[int, int] = (0, 0),
) -> Pair:  # fmt: skip
    """Draw once, as `generate_pair` does.

    Raises:
        RejectedDraw: this draw gives no acceptable pair; draw again.
    """
    segments = _draw_segments(pool, recipe, rng)
    behind = _draw_background(pool, segments, rng)
    masks = [_dilated(pool.index.mask(segment), recipe.dilation) for segment in segments]
    if any(np.any(a & b) for a, b in combinations(masks, 2)):
        raise RejectedDraw("segments overlap")
    cropped = tight(masks) if rng.uniform() < recipe.crop else _whole(masks[0])
    masks = [geometry.cut(mask, cropped) for mask in masks]
    height, width = masks[0].shape
    framed = square(look.fit, width, height, masks)
    masks = [geometry.cut(mask, framed) for mask in masks]
    if not all(mask.any() for mask in masks):
        raise RejectedDraw("an object lies outside the crop")
    behind_size = pool.backgrounds.image_size(behind)
    behind_framed = square(look.fit, *behind_size)
    boxes = _boxes(recipe.objects, look.size, room(*behind_size, behind_framed), rng)
    placed = [
        _place(pool.index, segment, label, mask, box, recipe, look, rng)
        for label, (segment, mask, box) in enumerate(zip(segments, masks, boxes, strict=True), 1)
    ]
    objects = tuple(item.description for item in placed)
    source_mask, target_mask = visible(
        _labelled([item.copied for item in placed]),
        _labelled([item.pasted for item in placed]),
        objects,
    )
    _check(source_mask, target_mask, objects, recipe)
    # The images come last: nearly every rejected draw is rejected without them.
    whole, source_hash = _load(pool.index, segments[0].image)
    original = geometry.cut(geometry.cut(whole, cropped), framed)
    whole, behind_hash = _load(pool.backgrounds, behind)
    target = geometry.resize(geometry.cut(whole, behind_framed), look.size, look.size)
    for item in placed:
        target = item.put_into(target, original)
    pair = Pair(
        index=index, source=geometry.resize(original, look.size, look.size), target=target,
        source_mask=source_mask, target_mask=target_mask, rng=key,
        objects=tuple(
            replace(item, segment={**item.segment, "sha256": source_hash}) for item in objects
        ),
        background={
            "dataset": pool.backgrounds.dataset, "image": pool.backgrounds.image_name(behind),
            "sha256": behind_hash,
        },
    )  # fmt: skip
    return pair if look.styler is None else _styled(pair, look.styler, rng)


@dataclass(frozen=True)
class _Placed:
    """An object before its pixels are known.

    Attributes:
        description: its entry in the pair.
        copied: where it stands in the source: bool (size, size).
        pasted: where it is put in the target: bool (size, size).
        window: the part of the target that holds all of it.
    """

    description: PairObject
    copied: Mask
    pasted: Mask
    window: geometry.Window

    def put_into(self, target: Image, original: Image) -> Image:
        """The target with the object's pixels out of the original, blended in."""
        height, width = self.pasted.shape
        matrix = self.description.target_from_source
        pixels = geometry.warp(original, matrix, width, height, window=self.window)
        return BLENDS[self.description.blend](target, pixels, self.pasted)


def _place(
    index: Index, segment: Segment, label: int, mask: Mask, box: Box, recipe: Recipe, look: Look,
    rng: np.random.Generator,
) -> _Placed:  # fmt: skip
    size = look.size
    points = outline(mask)
    matrix = place(
        points, box, size, scale=recipe.scale, rotation=recipe.rotation,
        ratio=recipe.ratio, ratio_steps=recipe.ratio_steps, rng=rng,
    )  # fmt: skip
    names = list(look.blends)
    weights = np.array([look.blends[name] for name in names])
    description = PairObject(
        label=label,
        target_from_source=matrix,
        category=index.category_name(segment.category),
        segment={
            "dataset": index.dataset,
            "image": index.image_name(segment.image),
            "annotation": segment.annotation,
            "proposer": index.header["proposer"],
        },
        blend=names[rng.choice(len(names), p=weights / weights.sum())],
    )
    windows = [_spanned(geometry.transform_points(m, points), size) for m in (np.eye(3), matrix)]
    copied, pasted = (
        geometry.warp_labels(mask.view(np.uint8), m, size, size, window=window).view(bool)
        for m, window in zip((np.eye(3), matrix), windows, strict=True)
    )
    return _Placed(description, copied, pasted, windows[1])


def _spanned(points: NDArray[np.float64], size: int) -> geometry.Window:
    """The window that holds normalised points (N, 2), as far as it lies in the frame."""
    low, high = np.floor(points.min(axis=0) * size), np.ceil(points.max(axis=0) * size)
    left, top, right, bottom = (int(v) for v in np.clip([*low, *high], 0, size))
    return left, top, right, bottom


def _whole(mask: Mask) -> geometry.Window:
    return 0, 0, mask.shape[1], mask.shape[0]


def _boxes(objects: int, size: int, within: Box, rng: np.random.Generator) -> list[Box]:
    """A box of the target for each object, all within one."""
    left, top, right, bottom = within
    across, down = right - left, bottom - top
    options = layouts(objects, STRIDE / size / min(across, down))
    boxes = options[rng.integers(len(options))]
    return [
        (left + across * a, top + down * b, left + across * c, top + down * d)
        for a, b, c, d in (boxes[i] for i in rng.permutation(len(boxes)))
    ]


def _labelled(masks: list[Mask]) -> Image:
    """A label map of masks, 1 for the first; later ones cover earlier ones."""
    labels = (mask.view(np.uint8) * np.uint8(label) for label, mask in enumerate(masks, 1))
    return reduce(np.maximum, labels)


def visible(
    source_mask: Image, target_mask: Image, objects: Sequence[PairObject]
) -> tuple[Image, Image]:
    """Label maps of what both images show: each pixel's place in the other image must be the same
    object's there, inside the frame and not covered by another one.
    """
    source, target = np.zeros_like(source_mask), np.zeros_like(target_mask)
    for item in objects:
        matrix = item.target_from_source
        in_source, in_target = (mask == item.label for mask in (source_mask, target_mask))
        turns = (in_source, in_target, np.linalg.inv(matrix)), (in_target, in_source, matrix)
        _keep_shown(*turns[0])
        # What is taken from one mask may take more from the other, at tips a pixel wide.
        turn = 1
        while _keep_shown(*turns[turn % 2]):
            turn += 1
        # An object's pixels are its own, so that nothing is added twice.
        source += in_source.view(np.uint8) * np.uint8(item.label)
        target += in_target.view(np.uint8) * np.uint8(item.label)
    return source, target


def _keep_shown(here: Mask, there: Mask, here_from_there: NDArray) -> bool:
    """Clear the pixels of a mask whose places the other mask lacks; whether there were any."""
    left, top, right, bottom = window = geometry.window_of(here)
    part = here[top:bottom, left:right].view(np.uint8)
    before = cv2.countNonZero(part) if part.size else 0
    if not before:
        return False
    height, width = here.shape
    shown = geometry.warp_labels(
        there.view(np.uint8), here_from_there, width, height, window=window
    )
    part &= shown[top:bottom, left:right]
    return cv2.countNonZero(part) < before


def _draw_segments(pool: Pool, recipe: Recipe, rng: np.random.Generator) -> list[Segment]:
    segments = [pool.draw_segment(rng)]
    others = pool.others(segments[0]) if recipe.objects > 1 else []
    while len(segments) < recipe.objects:
        if not others:
            raise RejectedDraw("no further segment of another category in the image")
        drawn = others[rng.integers(len(others))]
        segments.append(drawn)
        # Categories differ throughout; unknown ones are taken to differ.
        allowed = set(pool.others(drawn))
        others = [segment for segment in others if segment in allowed]
    return segments


def _draw_background(pool: Pool, segments: list[Segment], rng: np.random.Generator) -> int:
    behind = int(pool.background_images[rng.integers(len(pool.background_images))])
    if pool.backgrounds is pool.index and behind == segments[0].image:
        raise RejectedDraw("background is the source")
    if pool.backgrounds is pool.index and any(
        pool.index.shows(behind, segment.category) for segment in segments
    ):
        raise RejectedDraw("background shows the category")
    return behind


def _load(index: Index, image: int) -> tuple[Image, str]:
    """An image's pixels, and the SHA-256 of its file."""
    try:
        with stage("decode"):
            # In the frame in which it was annotated: upright, where that fits.
            pixels, sha256 = read_hashed_image(
                index.image_path(image), exif=index.image_size(image)
            )
    except ImageError as error:
        failed = {"image": index.image_name(image), "reason": error.reason}
        raise RejectedDraw("image cannot be decoded", failed) from error
    if (pixels.shape[1], pixels.shape[0]) != index.image_size(image):
        failed = {"image": index.image_name(image), "reason": "changed since it was indexed"}
        raise RejectedDraw("image changed", failed)
    return pixels, sha256


def _dilated(mask: Mask, margin: int) -> Mask:
    """The mask grown by a margin in pixels, one pixel's step to the sides at a time."""
    left, top, right, bottom = geometry.window_of(mask)
    part = np.s_[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
    grown = np.zeros_like(mask)
    away = cv2.distanceTransform(1 - mask[part].view(np.uint8), cv2.DIST_L1, 3)
    grown[part] = away <= margin
    return grown


def _check(
    source_mask: Image, target_mask: Image, objects: Sequence[PairObject], recipe: Recipe
) -> None:
    """Reject pairs that show too little in common, or whose objects touch on the stride's grid."""
    cells = max(1, round(source_mask.shape[0] / STRIDE))
    for mask in (source_mask, target_mask):
        # Shares of a cell, 255 for all of it.
        shares = [
            geometry.cell_means(cv2.compare(mask, item.label, cv2.CMP_EQ), cells, cells)
            for item in objects
        ]
        if np.sum(np.sum(shares, axis=0) > 127) < recipe.min_share * cells * cells:
            raise RejectedDraw("shared region too small")
        if not all(share.any() for share in shares):
            raise RejectedDraw("an object is hidden")
        if np.any(np.sum([share > 0 for share in shares], axis=0) > 1):
            raise RejectedDraw("objects touch")


def _styled(pair: Pair, styler: Styler, rng: np.random.Generator) -> Pair:
    return style_pairs([pair], styler, [rng])[0]
