"""COCO's segmentations, polygons and run lengths, checked and brought to one form."""

from typing import Any, NamedTuple

from pycocotools import mask as rle

from segswap.files.records import kind_of, short

FEW_POINTS = "parts of fewer than three points"
_LEAST = 6  # numbers of a polygon
_REACH = 10  # of the image's longer side, within which a polygon's points must lie


class Encoded(NamedTuple):
    """A segmentation as COCO's compressed run lengths.

    Attributes:
        counts: the run lengths.
        area: pixels inside the image, perhaps none.
        dropped: parts of fewer than three points, which are passed over.
    """

    counts: bytes
    area: int
    dropped: int


def is_outline(segmentation: Any) -> bool:
    """Whether a segmentation tells anything; where only a box is known, it is null or empty."""
    empty = isinstance(segmentation, list) and all(part == [] for part in segmentation)
    return segmentation is not None and not empty


def points_missing(segmentation: Any) -> int:
    """How many parts of a segmentation have fewer points than three, and are passed over."""
    parts = segmentation if isinstance(segmentation, list) else []
    return sum(isinstance(part, list) and len(part) < _LEAST for part in parts)


def encode_segmentation(segmentation: Any, width: int, height: int) -> Encoded:
    """A COCO segmentation of any kind to compressed run lengths of an image of so many pixels.

    Args:
        segmentation: a list of parts, or one of them: polygons, which lie anywhere within ten times
            the image's size, and run lengths, compressed or not.

    Raises:
        ValueError: it is malformed; the message says what is wrong, without the annotation's name.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    encoded: list[Any] = []
    too_few: list[int] = []
    for part in parts:
        if isinstance(part, dict):
            encoded.append(_run_lengths(part, width, height))
        elif not isinstance(segmentation, list):
            raise ValueError(f"its segmentation is {kind_of(part)}; {_EXPECTED}")
        elif not isinstance(part, list):
            raise ValueError(f"a polygon is {kind_of(part)}; {_EXPECTED}")
        else:
            _check_polygon(part, width, height)
            if len(part) < _LEAST:
                too_few.append(len(part) // 2)
            else:
                encoded += rle.frPyObjects([part], height, width)
    if not encoded:
        counts = " and ".join(map(str, sorted(set(too_few)))) or "no"
        raise ValueError(f"its polygons have {counts} points; expected three or more")
    merged = rle.merge(encoded)
    return Encoded(merged["counts"], int(rle.area(merged)), len(too_few))


# pycocotools believes its input: run lengths that are too short give masks out of memory that was
# never written, and coordinates that are huge or no numbers end the process.
_EXPECTED = (
    "expected polygons [[x, y, x, y, ...], ...] or run lengths {size: [height, width], counts: ...}"
)


def _check_polygon(polygon: list[Any], width: int, height: int) -> None:
    reach = _REACH * max(width, height)
    for value in polygon:
        if type(value) is not int and type(value) is not float:
            if isinstance(value, list):
                raise ValueError("a polygon's points are lists; expected x, y, x, y, ... in one")
            raise ValueError(f"a polygon has {kind_of(value)} as a coordinate; expected numbers")
        if not abs(value) <= reach:
            what = "far outside" if abs(value) > reach else "no place in"
            said = f"{float(value):g}" if abs(value) < 1e300 else "a huge number"
            raise ValueError(f"a polygon has {said} as a coordinate, {what} the image of "
                             f"{width} x {height} px")  # fmt: skip
    if len(polygon) % 2:
        raise ValueError(
            f"a polygon has {len(polygon)} coordinates, an odd number; expected an x and a y of "
            "each point"
        )


def _run_lengths(segmentation: dict[str, Any], width: int, height: int) -> Any:
    size = segmentation.get("size")
    if size != [height, width]:
        raise ValueError(
            f"its run lengths are of the size {short(size)}; expected the image's height and "
            f"width, [{height}, {width}]"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _decoded(counts)
    if not isinstance(counts, list):
        raise ValueError(f"its run lengths' counts are {kind_of(counts)}; expected text or a list")
    wrong = [count for count in counts if type(count) is not int or count < 0]
    if wrong:
        raise ValueError(f"its run lengths hold {short(wrong[0])}; expected counts of pixels")
    if sum(counts) != width * height:
        raise ValueError(
            f"its run lengths fill {sum(counts)} of {width * height} pixels; expected all of them"
        )
    return rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _decoded(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, the lowest first, the sixth bit says
    that more follow; from the fourth on, the difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its compressed run lengths are malformed")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths are cut off")
    return counts
