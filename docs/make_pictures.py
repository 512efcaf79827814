"""Makes the pictures of the documents: `python docs/make_pictures.py docs`.

    kinds.jpg   what segswap-base finds that three photographs share: persons
    pair.jpg    pairs made from photographs
    found.jpg   a detail, and the three best hits of a search for it
    group.jpg   a group of regions that segswap-discover finds

All are made of photographs inside scikit-image, and matplotlib's of Grace Hopper.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pipelines
import segswap
from generators.sources.photos import persons, photos
from pipelines.search.index import build_index
from segswap.drawing.draw import beside, join, outlined
from segswap.files.images import encode_jpeg, read_image
from segswap.models.prediction import enlarge
from segswap.search.retrieval import Hit

HEIGHT, GAP = 300, 8
TURN, DETAIL = 20, (150, 60, 340, 250)  # degrees; left, top, right, bottom in chelsea.png, turned
OTHERS = ("chelsea", "coffee", "coins", "ihc", "motorcycle_right", "page")
MORE = ("brick", "clock_motion", "grass", "gravel", "moon", "text")
Picture = NDArray[np.uint8]


def main(out: Path) -> None:
    """Make all of them in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    images = photos()[1]
    nine = [*persons(), *(images / f"{name}.png" for name in OTHERS)]
    fifteen = [*nine, *(images / f"{name}.png" for name in MORE)]
    _write(out / "kinds.jpg", kinds())
    _write(out / "found.jpg", found(fifteen))
    _write(out / "group.jpg", group(nine))
    with tempfile.TemporaryDirectory() as folder:
        pipelines.generate(f"{folder}/pairs", demo=True, pairs=8, workers=0)
        _write(out / "pair.jpg", read_image(Path(folder, "pairs", "examples.jpg")))


def kinds() -> Picture:
    """Three persons, matched two by two."""
    model = segswap.load()
    first, second, third = (read_image(path) for path in persons())
    rows = [model.match(*pair).draw(height=HEIGHT) for pair in ((first, second), (second, third))]
    return _row(rows, gap=3 * GAP)


def found(collection: list[Path]) -> Picture:
    """A part of one photograph, turned and grey, and where it is found among all of them."""
    with Image.open(photos()[1] / "chelsea.png") as photograph:
        detail = np.array(photograph.rotate(TURN).crop(DETAIL).convert("L").convert("RGB"))
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(list(map(str, collection)), "segswap-tiny", Path(folder))
        hits = segswap.retrieve(index, detail, top=3)
    image = read_image(hits[0].image)
    picture = beside(detail, _hit(hits[0]), HEIGHT)
    some = slice(0, None, max(1, len(hits[0].source_points) // 12))
    start = hits[0].source_points[some] / detail.shape[1::-1]
    end = hits[0].target_points[some] / image.shape[1::-1]
    join(picture, start, end, detail.shape, image.shape, HEIGHT)
    scores = [f"score {hit.score:.1f}" for hit in hits]
    others = [_scaled(_hit(hit)) for hit in hits[1:]]
    below = [_below(picture, scores[0], round(detail.shape[1] * HEIGHT / detail.shape[0]) + GAP)]
    below += [_below(other, score) for other, score in zip(others, scores[1:], strict=True)]
    return _row(below, gap=3 * GAP)


def _hit(hit: Hit) -> Picture:
    """An image of the collection, darkened but for the region that was found."""
    image = read_image(hit.image)
    if hit.box is not None and hit.mask is not None:
        image = _lit(image, enlarge(hit.mask, image.shape[1], image.shape[0]) > 0.5)
    return image


def group(images: list[Path]) -> Picture:
    """The strongest group of a discovery, its members in a row."""
    discovery = segswap.discover(images)
    (best, *others) = discovery.groups
    print(f"groups among {len(images)} images: {1 + len(others)}")
    shown = [read_image(discovery.images[member.image]) for member in best.members]
    parts = [_lit(image, m.mask) for image, m in zip(shown, best.members, strict=True)]
    picture = _row([_scaled(part) for part in parts])
    places = {member.image: number for number, member in enumerate(best.members)}
    left = np.cumsum([0, *(_scaled(part).shape[1] + GAP for part in parts)])
    for shared in best.shared:
        ends = [(places[image], shared.points[:, side]) for side, image in enumerate(shared.images)]
        (a, start), (b, end) = sorted(ends, key=lambda each: each[0])
        if b == a + 1:
            join(picture[:, left[a] :], start, end, shown[a].shape, shown[b].shape, HEIGHT)
    return picture


def _below(picture: Picture, text: str, left: int = 0) -> Picture:
    """A picture with a line of text below it, which begins so many pixels from the left."""
    line = np.full((28, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (left, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0,) * 3, 1, cv2.LINE_AA)
    return np.vstack([picture, line])


def _lit(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """An image that is darkened but for a region."""
    return outlined(np.where(mask[..., None], image, image // 3), mask.astype(np.uint8))


def _scaled(image: Picture) -> Picture:
    width = round(image.shape[1] * HEIGHT / image.shape[0])
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def _row(parts: list[Picture], gap: int = GAP) -> Picture:
    """Pictures of one height side by side on white."""
    space = np.full((parts[0].shape[0], gap, 3), 255, np.uint8)
    return np.hstack([piece for part in parts for piece in (space, part)][1:])


def _write(path: Path, picture: Picture) -> None:
    path.write_bytes(encode_jpeg(picture, 85))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
