"""One sample of a dataset against the format: its members, its record, its masks and its map."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segswap import geometry
from segswap.data import schema
from segswap.data.pair import FORMAT
from segswap.data.shards import Members
from segswap.files.images import read_labels
from segswap.files.jpeg import check_jpeg
from segswap.files.records import contradictions

# Says a problem: the check, what was found, what was expected.
Say = Callable[[str, str, str], None]
Contradiction = tuple[str, str]

SIDES = (("source", "target"), ("target", "source"))
_REQUIRED = ("source.jpg", "target.jpg", "source_mask.png", "target_mask.png", "json")
_SHARE = 0.02  # by which a grid's mask may be off
_GRID_PIXELS = 0.05  # by which a grid's positions may be off


@dataclass(frozen=True)
class Sample:
    """What could be read of a sample.

    Attributes:
        record: of KEY.json, as far as it is what the format says; {} where it is not.
        masks: the label maps of both sides, {} where one is missing or cannot be used.
        matrices: target_from_source by label; those that can be used.
    """

    record: dict[str, Any]
    masks: dict[str, NDArray[np.uint8]]
    matrices: dict[int, NDArray[np.float64]]


def check_sample(key: str, members: Members, stride: int | None, say: Say) -> Sample:
    """Check one sample.

    Args:
        key: its nine digits.
        members: its files, part to content.
        stride: of the grids, in pixels; None where it is not known.
        say: called with each problem.
    """
    for part in _REQUIRED:
        if part not in members:
            say("samples", f"no {key}.{part}", "one in every sample")
    if ("source_grid.npy" in members) != ("target_grid.npy" in members):
        say("samples", "a grid of one side only", "grids of both sides, or none")
    record: dict[str, Any] = {}
    wrong: list[Contradiction] = []
    if "json" in members:
        record, wrong = read_record(members["json"])
        wrong += _belonging(record, key, members)
    matrices, unusable = read_matrices(record)
    for found, expected in [*wrong, *unusable]:
        say("records", found, expected)
    masks = _images(members, record, say)
    if record and masks:
        _labels(record, masks, say)
        for found, expected in map_against_masks(masks, matrices):
            say("map and masks", found, expected)
        if not unusable:
            for found, expected in _grids(members, masks, matrices, stride):
                say("grids", found, expected)
    return Sample(record, masks, matrices)


# --- the record ------------------------------------------------------------------------------


def read_record(data: bytes) -> tuple[dict[str, Any], list[Contradiction]]:
    """A KEY.json, {} where it cannot be used, and what is wrong with it."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        return {}, [(f"JSON that cannot be read ({error})", "a JSON object")]
    wrong = list(contradictions(record, schema.RECORD, "the record"))
    if wrong:
        return {}, wrong
    for item in record["objects"]:
        wrong += contradictions(item, schema.OBJECT, "an object")
    if wrong:
        return {}, wrong
    for item in record["objects"]:
        name = f"object {item['label']}"
        wrong += contradictions(item["segment"], schema.SEGMENT, f"{name}'s segment")
        if not 1 <= item["label"] <= 255:
            wrong.append((f"a label {item['label']}", "1 to 255"))
    wrong += contradictions(record["background"], schema.BACKGROUND, "the background")
    wrong += contradictions(record["styles"], schema.STYLES, "styles")
    for side, style in record["styles"].items():
        if side in schema.STYLES and style is not None:
            wrong += contradictions(style, schema.STYLE, f"the {side}'s style")
    labels = [item["label"] for item in record["objects"]]
    if len(set(labels)) < len(labels) or not labels:
        wrong.append((f"objects with labels {labels}", "at least one, each with its own label"))
    if [type(number) for number in record["rng"]] != [int, int]:
        wrong.append((f"rng is {record['rng']!r}", "two integers"))
    if record["format"] != FORMAT:
        wrong.append((f"format {record['format']}", str(FORMAT)))
    return record, wrong


def _belonging(record: dict[str, Any], key: str, members: Members) -> Iterator[Contradiction]:
    """What a record says of its sample that is not so."""
    if not record:
        return
    if record["index"] != int(key):
        yield f"index {record['index']}", f"{int(key)}, as in the key"
    for side in ("source", "target"):
        styled, there = record["styles"].get(side), f"{side}_styled.jpg" in members
        if (styled is not None) != there:
            found = "is there" if there else "is missing"
            yield (
                f"{side}_styled.jpg {found}, and its style is {json.dumps(styled)}",
                "a style where there is a styled image, else null",
            )


def read_matrices(
    record: dict[str, Any],
) -> tuple[dict[int, NDArray[np.float64]], list[Contradiction]]:
    """The matrices that can be used, by label, and what is wrong with the others."""
    matrices, wrong = {}, []
    for item in record.get("objects", []):
        matrix = _matrix(item["target_from_source"])
        if matrix is None:
            found = f"object {item['label']}'s matrix is {item['target_from_source']!r}"
            wrong.append((found, "3 rows of 3 finite numbers, invertible"))
        elif 1 <= item["label"] <= 255:
            matrices[item["label"]] = matrix
    return matrices, wrong


def _matrix(rows: list[Any]) -> NDArray[np.float64] | None:
    """An invertible 3x3 matrix of JSON numbers; None where it is none."""
    numbers = [type(v) for row in rows if isinstance(row, list) for v in row]
    if not set(numbers) <= {int, float}:
        return None
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not matrix.any():
        return None
    # Up to scale: a small matrix is no worse than a large one.
    return matrix if abs(np.linalg.det(matrix / np.abs(matrix).max())) > 1e-12 else None


# --- the images ------------------------------------------------------------------------------


def _images(
    members: Members, record: dict[str, Any], say: Say
) -> dict[str, NDArray[np.uint8]]:  # fmt: skip
    """Check every image; returns both masks, or none where the pair cannot be judged by them."""
    size = (record["width"], record["height"]) if record else None
    masks = {}
    for part, data in members.items():
        if not part.endswith((".jpg", ".png")):
            continue
        try:
            if part.endswith(".png"):
                labels = read_labels(data, name=part)
                masks[part.removesuffix("_mask.png")] = labels
                found = labels.shape[::-1]
            else:
                width, height, colours = check_jpeg(data)
                found = (width, height)
                if colours not in ("YCbCr", "RGB"):
                    raise ValueError(f"{colours} instead of RGB")
        except ValueError as error:
            say("images", f"{part} cannot be used ({error})", "a whole image of its kind")
            continue
        size = size or found
        if found != size:
            say("images", f"{part} is {found[0]} x {found[1]}", f"{size[0]} x {size[1]}")
            masks.pop(part.removesuffix("_mask.png"), None)
    return masks if len(masks) == 2 else {}


def _labels(record: dict[str, Any], masks: dict[str, NDArray[np.uint8]], say: Say) -> None:
    """Masks hold the objects' labels, all of them and no others."""
    expected = {item["label"] for item in record["objects"]}
    for side, mask in masks.items():
        found = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()) - {0}
        if found != expected:
            say(
                "labels", f"the {side}_mask holds labels {sorted(found)}",
                f"{sorted(expected)}, those of the objects",
            )  # fmt: skip


# --- the map ---------------------------------------------------------------------------------


def map_against_masks(
    masks: dict[str, NDArray[np.uint8]], matrices: dict[int, NDArray[np.float64]]
) -> Iterator[Contradiction]:
    """Pixels of either mask whose place in the other image is over a pixel off the object there.

    Args:
        masks: label maps of "source" and "target", (H, W).
        matrices: target_from_source by label.
    """
    for label, matrix in matrices.items():
        regions = {side: cv2.compare(mask, label, cv2.CMP_EQ) for side, mask in masks.items()}
        if not all(region.any() for region in regions.values()):
            continue  # the labels' check says so
        for here, there in SIDES:
            carry = matrix if here == "source" else inverse(matrix)
            lost, furthest, count = _astray(regions[here], regions[there], carry)
            if lost:
                yield (
                    f"object {label}: {lost} of {count} pixels of the {here} mask lie outside the "
                    f"{there} mask, by up to {furthest:.1f} px",
                    "the same region, to one pixel",
                )


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a matrix that `read_matrices` found usable, of any scale."""
    scale = np.abs(matrix).max()
    return np.linalg.inv(matrix / scale).astype(np.float64)


def _astray(
    region: NDArray[np.uint8], other: NDArray[np.uint8], carry: NDArray[np.float64]
) -> tuple[int, float, int]:
    """How many of a region's pixels lie over a pixel off the other region, how far, of how many."""
    height, width = region.shape
    rows, columns = np.nonzero(region)
    centres = geometry.to_normalised(np.stack([columns, rows], axis=-1), width, height)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = geometry.transform_points(carry, centres) * (width, height)
    # Two pixels of margin: beyond the frame there is no object.
    places = np.nan_to_num(places, nan=-9.0).clip(-2, (width + 1.5, height + 1.5))
    column, row = (np.floor(places).astype(np.int64) + 2).T
    framed = cv2.copyMakeBorder(other, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(0,))
    lost = cv2.dilate(framed, np.ones((3, 3), np.uint8))[row, column] == 0
    if not lost.any():
        return 0, 0.0, len(rows)
    away = cv2.distanceTransform(cv2.bitwise_not(framed), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int(lost.sum()), float(away[row, column].max()), len(rows)


# --- grids -----------------------------------------------------------------------------------


def _grids(
    members: Members, masks: dict[str, NDArray[np.uint8]],
    matrices: dict[int, NDArray[np.float64]], stride: int | None,
) -> Iterator[Contradiction]:  # fmt: skip
    for side, _ in SIDES:
        if f"{side}_grid.npy" not in members:
            continue
        try:
            grid = np.load(io.BytesIO(members[f"{side}_grid.npy"]), allow_pickle=False)
        except Exception as error:  # NumPy raises many kinds on broken data
            yield f"{side}_grid.npy cannot be read ({error})", "a float32 .npy file"
            continue
        carries = {
            label: matrix if side == "source" else inverse(matrix)
            for label, matrix in matrices.items()
        }
        for found, expected in grid_contradictions(grid, masks[side], carries, stride):
            yield f"{side}_grid {found}", expected


def grid_contradictions(
    grid: NDArray, labels: NDArray[np.uint8], carries: dict[int, NDArray[np.float64]],
    stride: int | None,
) -> Iterator[Contradiction]:  # fmt: skip
    """Where a grid of precomputed correspondences contradicts the mask and the matrices.

    Cells that the image's edge cuts are passed over, and positions are compared where one object
    fills the cell.

    Args:
        grid: x, y in the other image and the mask's mean, (3, rows, columns).
        labels: the side's mask, (H, W).
        carries: the other image's coordinates from this one's, by label.
        stride: the cells' pixels; None for the smallest that gives the grid's shape.
    """
    height, width = labels.shape
    strides = [
        n for n in range(1, max(labels.shape) + 1)
        if grid.shape == (3, -(-height // n), -(-width // n)) and stride in (None, n)
    ]  # fmt: skip
    if not strides or grid.dtype != np.float32:
        size = f"the stride {stride}" if stride else "some stride"
        yield f"is {grid.dtype} {grid.shape}", f"float32 (3, rows, columns) for {size}"
        return
    if not (np.isfinite(grid).all() and grid.min() >= 0 and grid.max() <= 1):
        yield "has values outside of [0, 1]", "[0, 1]"
        return
    n = strides[0]
    rows, columns = height // n, width // n
    if not rows * columns:
        return
    whole = grid[:, :rows, :columns]
    cells = labels[: rows * n, : columns * n].reshape(rows, n, columns, n)
    shares = {label: (cells == label).mean(axis=(1, 3)) for label in carries}
    # A cell of several objects may tell the share of all of them or of the largest.
    high, low = sum(shares.values(), np.zeros(1)), np.max([*shares.values()] or [[0]], axis=0)
    off = np.maximum(whole[2] - high, low - whole[2]).max()
    if off > _SHARE:
        yield f"has a mask that is off by up to {off:.2f}", "the mask's mean in each cell"
    # The whole cells fill so much of the image.
    centres = geometry.cell_centres(rows, columns) * (columns * n / width, rows * n / height)
    for label, carry in carries.items():
        full = shares[label] == 1
        places = geometry.transform_points(carry, centres[full]).clip(0, 1)
        errors = np.abs(whole[:2, full].T - places) * (width, height)
        if errors.size and errors.max() > _GRID_PIXELS:
            yield (
                f"has positions of object {label} that are off by up to {errors.max():.2f} px",
                "the cells' centres through the object's matrix",
            )
