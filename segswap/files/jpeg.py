"""JPEG to RGB, strictly: what libjpeg only warns of, and then fills up with grey, is an error."""

import re
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

# The one warning that is of no consequence; and what it is about.
_HARMLESS, _JFIF = "Warning: unknown JFIF revision number", re.compile(rb"JFIF\0.", re.DOTALL)
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # which ends the data of a scan
_SOS, _EOI = 0xDA, 0xD9


def decode_jpeg(data: bytes, header: Image.Image) -> NDArray[np.uint8]:
    """All of a JPEG: uint8 (H, W, 3).

    Args:
        data: the file.
        header: the same as Pillow opened it.

    Raises:
        ValueError: it is cut, damaged, or of a kind that libjpeg does not decode.
    """
    pixels = _strictly(data, "CMYK" if header.mode == "CMYK" else "RGB")
    if header.info.get("progressive"):
        _check_scans(data)
    if header.mode != "CMYK":
        return pixels
    if "adobe" in header.info:  # Adobe's programs store how much of each ink is left out
        pixels = 255 - pixels
    return np.array(Image.frombytes("CMYK", header.size, pixels.tobytes()).convert("RGB"))


def check_jpeg(data: bytes) -> tuple[int, int, str]:
    """Width, height and the colours' name of a JPEG whose data is all there: decoded, at an eighth
    of its size.

    Raises:
        ValueError: it is cut or damaged.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    inks = colours in ("CMYK", "YCCK")
    simplejpeg.decode_jpeg(data, "CMYK" if inks else "RGB", min_height=1, min_width=1)
    return width, height, colours


def _strictly(data: bytes, colours: Literal["RGB", "CMYK"]) -> NDArray[np.uint8]:
    try:
        return simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        if not str(error).startswith(_HARMLESS):
            raise
        return simplejpeg.decode_jpeg(_JFIF.sub(b"JFIF\0\1", data, count=1), colours)


def _check_scans(data: bytes) -> None:
    """Raise ValueError where a progressive JPEG ends before its last scans, which libjpeg takes for
    a blurred picture.
    """
    missing: dict[tuple[int, int], int] = {}  # bits still to come of a component's coefficient
    position = 2
    while (found := _MARKER.search(data, position)) and data[found.end() - 1] != _EOI:
        start = found.end()
        size = int.from_bytes(data[start : start + 2], "big")
        position = start + size
        if data[start - 1] != _SOS:
            continue
        scan = data[start + 2 : position]
        first, last, bits = scan[-3], scan[-2], scan[-1] & 15
        for component in scan[1 : 1 + 2 * scan[0] : 2]:
            missing |= {(component, which): bits for which in range(first, last + 1)}
    if any(missing.values()) or all(which == 0 for _, which in missing):
        raise ValueError("the progressive JPEG ends before its last scans")
