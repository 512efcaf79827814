"""What tells a whole file from a cut or overwritten one where its decoder would not."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, TiffImagePlugin

# Nothing that is compressed holds as many zeros: parts of a file that were never written do.
_HOLE = bytes(1024)
# Of TIFF: LZW, both kinds of deflate, JPEG, LZMA, Zstandard and WebP.
_COMPRESSIONS = (5, 7, 8, 32946, 34925, 50000, 50001)
_STARTS = {"JPEG2000": b"\xff\x4f\xff\x51", "AVIF": b"mdat"}  # of the compressed data


def check_whole(data: bytes, header: Image.Image) -> None:
    """Check what a file says of its own length and content.

    Args:
        data: the file.
        header: the same as Pillow opened it.

    Raises:
        ValueError: the file is cut or damaged; the message says where.
    """
    if header.format == "PNG":
        _check_png(data)
    for start, end in _compressed(data, header):
        if end > len(data):
            raise ValueError(f"the {header.format} is cut short by {end - len(data)} bytes")
        if (hole := data.find(_HOLE, start, end)) >= 0:
            raise ValueError(f"the {header.format} holds zeros alone from byte {hole}")


def _check_png(data: bytes) -> None:
    """Every chunk is there and has its checksum, which Pillow does not look at."""
    view = memoryview(data)
    position, kind = 8, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("the PNG is cut short")
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + size
        if end > len(data):
            raise ValueError(f"the PNG is cut short by {end - len(data)} bytes")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError(f"the PNG is damaged between bytes {position} and {end}")
        position = end


def _compressed(data: bytes, header: Image.Image) -> Iterator[tuple[int, int]]:
    """First byte, and the one behind the last, of the parts that hold compressed pixels."""
    if header.format == "WEBP":
        yield from _webp_chunks(data)
    elif isinstance(header, TiffImagePlugin.TiffImageFile):
        tags = header.tag_v2
        if tags.get(259, 1) in _COMPRESSIONS:
            starts, sizes = (324, 325) if 324 in tags else (273, 279)
            for start, size in zip(_many(tags.get(starts)), _many(tags.get(sizes)), strict=False):
                yield start, start + size
    elif header.format in _STARTS:
        yield max(0, data.find(_STARTS[header.format])), len(data)


def _webp_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    position, whole = 12, 8 + int.from_bytes(data[4:8], "little")
    yield whole, whole
    while position + 8 <= min(whole, len(data)):
        kind, size = struct.unpack_from("<4sI", data, position)
        if kind in (b"VP8 ", b"VP8L"):
            yield position + 8, position + 8 + size
        position += 8 + size + size % 2


def _many(value: Any) -> tuple[int, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)
