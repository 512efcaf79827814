"""The published pair procedure (Shen, Efros, Joulin, Aubry 2022), written plainly, to compare with.

One object, no style. The steps and their order are the published ones: every step resamples with
Pillow and multiplies its matrix in, the mask grows by 20 iterations of SciPy's dilation, OpenCV's
seamlessClone blends, and each pair becomes loose files. Two things differ, both in its favour:
seamlessClone gets a copy of the mask, because OpenCV 5 overwrites it, and a clone that fails at
the frame is drawn again, where the published program would end.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

SIZE, CELLS, DILATION, LEAST_CELLS = 480, 30, 20, 9
BILINEAR = Image.Resampling.BILINEAR
Array = NDArray[np.float64]


class Published(NamedTuple):
    """A pair as the published procedure records it.

    Attributes:
        source, target: uint8 (480, 480, 3).
        source_mask, target_mask: uint8 (480, 480), 0 to 255.
        matrix: target pixels from source pixels, (3, 3), corners of the image at 0 and 480.
        grids: for source and target float32 (3, 30, 30): x, y in the other image, and the mask.
    """

    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    source_mask: NDArray[np.uint8]
    target_mask: NDArray[np.uint8]
    matrix: Array
    grids: tuple[NDArray[np.float32], NDArray[np.float32]]


class Coco:
    """What the procedure draws from: first polygons by category, categories by image."""

    def __init__(self, annotations: Path, images: Path, area: tuple[float, float]) -> None:
        content = json.loads(annotations.read_bytes())
        self.folder = images
        self.names = {image["id"]: image["file_name"] for image in content["images"]}
        pixels = {image["id"]: image["width"] * image["height"] for image in content["images"]}
        self.shown: dict[int, set[int]] = {identity: set() for identity in self.names}
        self.objects: dict[int, list[tuple[int, list[float]]]] = defaultdict(list)
        for item in content["annotations"]:
            self.shown[item["image_id"]].add(item["category_id"])
            share = item["area"] / pixels[item["image_id"]]
            if not item["iscrowd"] and area[0] <= share <= area[1]:
                entry = (item["image_id"], item["segmentation"][0])
                self.objects[item["category_id"]].append(entry)

    def load(self, image: int) -> Image.Image:
        return Image.open(self.folder / self.names[image]).convert("RGB")


def draw(coco: Coco, rng: np.random.Generator) -> Published | None:
    """One draw; None where it is dropped."""
    behind = list(coco.names)[rng.integers(len(coco.names))]
    background = coco.load(behind).resize((SIZE, SIZE), BILINEAR)
    categories = [category for category in coco.objects if category not in coco.shown[behind]]
    objects = coco.objects[categories[rng.integers(len(categories))]]
    image, polygon = objects[rng.integers(len(objects))]
    source = coco.load(image)
    canvas = Image.new("L", source.size, 0)
    ImageDraw.Draw(canvas).polygon(polygon, outline=1, fill=1)
    grown = ndimage.binary_dilation(np.array(canvas, bool), iterations=DILATION)
    if rng.uniform() > 0.8:
        source, grown = tight(source, grown)
    source = source.resize((SIZE, SIZE), BILINEAR)
    mask = Image.fromarray(grown.astype(np.uint8) * 255).resize((SIZE, SIZE), BILINEAR)

    patch, patch_mask, matrix = stretched(source, mask, rng.uniform(0.7, 1, 2))
    patch, patch_mask, matrix = turned(patch, patch_mask, rng.uniform(-15, 15), matrix)
    patch, patch_mask, matrix = cut_out(patch, patch_mask, matrix)
    patch, patch_mask, matrix = fitted(patch, patch_mask, matrix, rng)
    try:
        target, target_mask, matrix = cloned(patch, patch_mask, background, matrix, rng)
    except cv2.error:
        return None
    grids = consistent(np.array(mask), matrix)
    if min(grid[2].sum() for grid in grids) < LEAST_CELLS:
        return None
    return Published(np.array(source), target, np.array(mask), target_mask, matrix, grids)


def tight(source: Image.Image, mask: NDArray[np.bool_]) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Crop at the side nearest to the object."""
    rows, columns = np.nonzero(mask)
    width, height = source.size
    boxes = [
        (columns.min(), 0, width, height), (0, 0, columns.max() + 1, height),
        (0, rows.min(), width, height), (0, 0, width, rows.max() + 1),
    ]  # fmt: skip
    distances = [columns.min(), width - columns.max() - 1, rows.min(), height - rows.max() - 1]
    left, top, right, bottom = map(int, boxes[int(np.argmin(distances))])
    return source.crop((left, top, right, bottom)), mask[top:bottom, left:right]


def stretched(image: Image.Image, mask: Image.Image, scale: Array) -> tuple[Any, Any, Array]:
    """Independent scales of x and y."""
    width, height = int(image.width * scale[0]), int(image.height * scale[1])
    matrix = np.diag([width / image.width, height / image.height, 1.0])
    return (
        image.resize((width, height), BILINEAR), mask.resize((width, height), BILINEAR), matrix
    )  # fmt: skip


def turned(
    image: Image.Image, mask: Image.Image, degrees: float, matrix: Array
) -> tuple[Any, Any, Array]:
    """Rotate, counter-clockwise where positive, on a canvas that grows to hold everything."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    if degrees >= 0:
        turn[1, 2] = image.width * s
    else:
        turn[0, 2] = -image.height * s
    return image.rotate(degrees, expand=True), mask.rotate(degrees, expand=True), turn @ matrix


def cut_out(image: Image.Image, mask: Image.Image, matrix: Array) -> tuple[Any, Any, Array]:
    """Crop to the mask's bounding box."""
    rows, columns = np.nonzero(np.array(mask) > 128)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    moved = np.array([[1.0, 0.0, -box[0]], [0.0, 1.0, -box[1]], [0.0, 0.0, 1.0]])
    return image.crop(box), mask.crop(box), moved @ matrix


def fitted(
    image: Image.Image, mask: Image.Image, matrix: Array, rng: np.random.Generator
) -> tuple[Any, Any, Array]:
    """Scale to a share of the frame, small ones favoured."""
    weights = np.exp(-np.arange(10) / 10)
    drawn = rng.choice(np.linspace(0.2, 1, 10), p=weights / weights.sum())
    zoom = drawn * min(SIZE / image.width, SIZE / image.height)
    size = (int(image.width * zoom), int(image.height * zoom))
    scaled = np.diag([size[0] / image.width, size[1] / image.height, 1.0])
    return image.resize(size, BILINEAR), mask.resize(size, BILINEAR), scaled @ matrix


def cloned(
    patch: Image.Image, mask: Image.Image, background: Image.Image, matrix: Array,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Array]:  # fmt: skip
    """Put down uniformly where it fits whole, blended by seamlessClone."""
    top = int(rng.integers(SIZE - patch.height + 1))
    left = int(rng.integers(SIZE - patch.width + 1))
    centre = (left + patch.width // 2 - 1, top + patch.height // 2 - 1)
    pixels, cut = np.array(patch), np.array(mask)
    target = cv2.seamlessClone(pixels, np.array(background), cut.copy(), centre, cv2.NORMAL_CLONE)
    target_mask = np.zeros((SIZE, SIZE), np.uint8)
    target_mask[top : top + patch.height, left : left + patch.width] = cut
    moved = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
    return target, target_mask, moved @ matrix


def consistent(
    source_mask: NDArray[np.uint8], matrix: Array
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Positions on the grid, and masks that count only what maps there and back."""
    cells = (np.arange(CELLS) + 0.5) / CELLS
    grid = np.stack([*np.meshgrid(cells, cells), np.ones((CELLS, CELLS))])

    def carried(m: Array) -> NDArray[np.float32]:
        there = np.einsum("ij,jhw->ihw", m, grid * [[[SIZE]], [[SIZE]], [[1]]])
        return (there[:2] / SIZE).astype(np.float32)

    def sampled(mask: NDArray[np.float32], place: NDArray[np.float32]) -> NDArray[np.float32]:
        pixels = place * CELLS - 0.5
        found = cv2.remap(mask, pixels[0], pixels[1], cv2.INTER_LINEAR, borderValue=0)
        return found * np.all((place > 0) & (place < 1), axis=0)

    to_target, to_source = carried(matrix), carried(np.linalg.inv(matrix))
    coarse = cv2.resize(source_mask, (CELLS, CELLS), interpolation=cv2.INTER_LINEAR)
    first = coarse.astype(np.float32) / 255
    first = first * sampled(sampled(first, to_source), to_target)
    second = sampled(first, to_source)
    return np.concatenate([to_target, first[None]]), np.concatenate([to_source, second[None]])


def save(pair: Published, folder: Path, number: int) -> None:
    """The pair's loose files."""
    Image.fromarray(pair.source).save(folder / f"{number}_a.jpg")
    Image.fromarray(pair.target).save(folder / f"{number}_b.jpg")
    np.save(folder / f"{number}_a.npy", pair.grids[0])
    np.save(folder / f"{number}_b.npy", pair.grids[1])
