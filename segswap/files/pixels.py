"""Pixels of every kind that Pillow opens to RGB, and pictures turned upright."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, TiffImagePlugin

from segswap.files.headers import BROKEN, pillow_reads

RGB = NDArray[np.uint8]
_EXIF = b"Exif\0\0"
# From how the pixels are stored to how the picture is meant, by EXIF's orientation.
_TURNS: dict[int, Callable[[RGB], RGB]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}
_BACK = {6: 8, 8: 6}  # all others are their own inverse
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 262, 339  # tags of TIFF
_OUTLIER = 10  # times what 99 in 100 values are below


class PixelsError(ValueError):
    """Pixels of a kind, or with values, that cannot be shown as RGB; the message says which."""


def orientation(image: Image.Image, name: str) -> int:
    """How a picture is to be turned, from 1 to 8, as EXIF counts them; 1 where EXIF cannot be read.

    To be asked before the pixels are loaded: Pillow turns a TIFF then.
    """
    with pillow_reads(name):
        try:
            stored = image.info.get("exif")
            # Some programs write the header twice; which Pillow reads depends on its version.
            if isinstance(stored, bytes) and stored.startswith(_EXIF * 2):
                exif = Image.Exif()
                exif.load(re.sub(b"^(%b)+" % _EXIF, _EXIF, stored))
            else:
                exif = image.getexif()
            told = exif.get(ExifTags.Base.Orientation, 1)
        except BROKEN:
            return 1
    return int(told) if told in _TURNS else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image that is not loaded, before it is turned."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # which Pillow says as turned
        return image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
    return image.size


def turned(pixels: RGB, turn: int) -> RGB:
    """A picture (H, W, 3) turned from how it is stored to how it is meant, by its orientation."""
    return np.ascontiguousarray(_TURNS[turn](pixels)) if turn in _TURNS else pixels


def as_stored(pixels: RGB, turn: int) -> RGB:
    """The inverse of `turned`."""
    return turned(pixels, _BACK.get(turn, turn))


def to_rgb(image: Image.Image) -> RGB:
    """A loaded image of any mode as RGB, uint8 (H, W, 3), as docs/images.md says.

    Raises:
        PixelsError: its kind is not read, or its values do not fit in.
    """
    kind = _tiff_kind(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if image.mode == "F":
        return _in_three(_grey(_float(image)))
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        # Pillow has 16 bits in modes of 16 and of 32, and 12 bits as they are.
        top = 2 ** kind.get("bits", 16) - 1
        if grey.min() < 0 or grey.max() > top:
            raise PixelsError(
                f"its values reach from {grey.min()} to {grey.max()}; expected 8 or 16 bits, from "
                f"0 to {top}"
            )
        table = _grey(np.arange(top + 1) / top)
        return _in_three((table[::-1] if kind.get("white") else table)[grey])
    if image.mode in ("LAB", "HSV"):
        raise PixelsError(f"its colours are {image.mode}, which is not read; expected RGB or grey")
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes all for such as Adobe's programs write
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey(values: NDArray[np.float64]) -> RGB:
    """Shares of white as grey. Overwrites them."""
    values *= 255
    np.rint(values, out=values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _in_three(grey: NDArray[np.uint8]) -> RGB:
    return np.repeat(grey[..., None], 3, axis=-1)


def _tiff_kind(image: TiffImagePlugin.TiffImageFile) -> dict[str, Any]:
    """A TIFF's bits a channel, and whether its 0 is white."""
    tags = image.tag_v2
    bits, field = tags.get(_BITS, (1,))[0], tags.get(_SAMPLES, (1,))[0]
    white = tags.get(_PHOTOMETRIC) == 0
    if field == 2 or (bits == 32 and image.mode != "F"):
        sign = "signed" if field == 2 else "unsigned"
        raise PixelsError(
            f"a TIFF of {bits}-bit {sign} integers, which is not read, as nothing says which of "
            "them is white; convert it to 8 or 16 bits, unsigned"
        )
    if white and image.mode == "F":
        raise PixelsError("a TIFF of floats where 0 is white, which is not read; invert it")
    return {"bits": bits, "white": white}


def _float(image: Image.Image) -> NDArray[np.float64]:
    """Floats from 0 to 1, or to their largest value where that is above, as shares of white."""
    with np.errstate(invalid="ignore"):  # of NaN, which is looked for
        values = np.array(image, np.float64)
    if wrong := values.size - np.count_nonzero(np.isfinite(values)):
        raise PixelsError(f"{wrong} of its values are NaN or infinite; expected numbers alone")
    least, most = float(values.min()), float(values.max())
    if least < -max(most, 1.0):
        raise PixelsError(
            f"its floats reach from {least:g} to {most:g}; expected 0 to 1, or 0 to any number"
        )
    if most > 1:
        usual = float(np.partition(values.ravel(), k := values.size * 99 // 100)[k])
        if most > _OUTLIER * max(usual, 1.0):
            raise PixelsError(
                f"its largest float is {most:g}, and 99 in 100 are not above {usual:g}, so that "
                "nearly all would be black; scale them to 0 to 1"
            )
    values /= max(most, 1.0)
    return values
