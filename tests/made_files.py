"""Image files for tests, byte by byte where no library would write them."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 96, 128


def picture() -> NDArray[np.uint8]:
    """Waves in three colours, with texture everywhere: uint8 (96, 128, 3)."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3))
    waves = [rows * 2, columns * 1.5, 100 + 90 * np.sin((rows + columns) / 9)]
    return np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    """The picture, or another one, as Pillow writes it."""
    file = io.BytesIO()
    (image or Image.fromarray(picture())).save(file, kind, **options)
    return file.getvalue()


def tiff(
    values: NDArray[np.generic], *, white: bool = False, bits: int | None = None,
    deflated: bool = False, orientation: int = 1,
) -> bytes:  # fmt: skip
    """A TIFF of values (H, W[, channels]) as they are.

    Args:
        values: of any integers or floats.
        white: of one channel, 0 is white.
        bits: fewer than the values' own, as 12 of 16.
        deflated: compressed.
        orientation: EXIF's.
    """
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    if bits:
        order = np.arange(bits)[::-1]
        single = (values[..., None].astype(np.uint32) >> order) & 1
        data = np.packbits(single.astype(np.uint8).reshape(height, -1), axis=1).tobytes()
    data = zlib.compress(data) if deflated else data
    tags = {
        256: [width], 257: [height], 258: [bits or values.dtype.itemsize * 8] * channels,
        259: [8 if deflated else 1], 262: [2 if channels == 3 else 0 if white else 1], 273: [0],
        274: [orientation], 277: [channels], 278: [height], 279: [len(data)],
        339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
    }  # fmt: skip
    beside = 8 + 2 + 12 * len(tags) + 4
    more = b"".join(struct.pack(f"<{len(told)}H", *told) for told in tags.values() if len(told) > 2)
    tags[273] = [beside + len(more)]
    entries, place = b"", beside
    for tag, told in tags.items():
        if len(told) > 2:
            value, place = struct.pack("<I", place), place + 2 * len(told)
        else:
            value = struct.pack("<I", told[0]) if len(told) == 1 else struct.pack("<2H", *told)
        long = tag in (273, 279)
        entries += struct.pack("<HHI", tag, 4 if long else 3, len(told)) + value
    start = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    return start + entries + bytes(4) + more + data


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """A JPEG without its first segment of a kind."""
    start = jpeg.index(bytes([255, marker]))
    (size,) = struct.unpack_from(">H", jpeg, start + 2)
    return jpeg[:start] + jpeg[start + 2 + size :]


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """A JPEG with a segment of EXIF behind its beginning."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
