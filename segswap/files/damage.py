"""What tells a whole file from a cut or overwritten one where its decoder would not."""

import struct
import zlib
from typing import Any

from PIL import Image, TiffImagePlugin

from segswap.files.jpeg import check_jpeg

# So many zeros stand in no data of such a kind, but where a part of the file was never written:
# JPEG 2000 has single ones for what is empty.
_HOLES = {"WEBP": bytes(64), "TIFF": bytes(64), "AVIF": bytes(64), "JPEG2000": bytes(1024)}
_JPEG, _DEFLATE = (7,), (8, 32946)  # of TIFF, which also has codes without a checksum:
_HOLED = (3, 4, 5, 34925, 50000, 50001)  # fax, LZW, LZMA, Zstandard, WebP


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
    elif isinstance(header, TiffImagePlugin.TiffImageFile):
        _check_tiff(data, header.tag_v2)
    elif header.format == "WEBP":
        _check_webp(data)
    elif header.format == "JPEG2000":
        start, end = data.find(b"\xff\x4f\xff\x51"), data.rfind(b"\xff\xd9")
        if end < start:
            raise ValueError("the JPEG2000 is cut short")
        _check_part(data, header.format, start, end)
    elif header.format == "AVIF":
        start = data.find(b"mdat")
        size = int.from_bytes(data[start - 4 : start], "big")
        _check_part(data, header.format, start, start - 4 + size if size > 1 else len(data))


def _check_part(data: bytes, kind: str, start: int, end: int) -> None:
    """Compressed data from one byte to before another are there and without a hole."""
    if end > len(data):
        raise ValueError(f"the {kind} is cut short by {end - len(data)} bytes")
    if (hole := data.find(_HOLES[kind], start, end)) >= 0:
        raise ValueError(f"the {kind} holds zeros alone from byte {hole}")


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


def _check_webp(data: bytes) -> None:
    position, whole = 12, 8 + int.from_bytes(data[4:8], "little")
    if whole > len(data):
        raise ValueError(f"the WEBP is cut short by {whole - len(data)} bytes")
    while position + 8 <= whole:
        kind, size = struct.unpack_from("<4sI", data, position)
        if kind in (b"VP8 ", b"VP8L"):
            _check_part(data, "WEBP", position + 8, position + 8 + size)
        position += 8 + size + size % 2


def _check_tiff(data: bytes, tags: Any) -> None:
    compression = tags.get(259, 1)
    places, sizes = (324, 325) if 324 in tags else (273, 279)  # of tiles, or of strips
    for start, size in zip(_many(tags.get(places)), _many(tags.get(sizes)), strict=False):
        part = data[start : start + size]
        if compression in _JPEG:
            check_jpeg(tags.get(347, b"")[:-2] + part[2 if 347 in tags else 0 :])
        elif compression in _DEFLATE:
            zlib.decompress(part)
        elif compression in _HOLED:
            _check_part(data, "TIFF", start, start + size)


def _many(value: Any) -> tuple[int, ...]:
    return () if value is None else value if isinstance(value, tuple) else (value,)
