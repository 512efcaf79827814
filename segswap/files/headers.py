"""The header of an image file: of which kind it is and how large; or what the file is instead."""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

from segswap.files.formats import pillow_formats
from segswap.files.limits import max_megapixels, wrong_size

# What Pillow's decoders raise on broken data. Only calls of Pillow may stand where it is caught.
BROKEN = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_ONE_AT_A_TIME = threading.Lock()
_BEGINNING = 512
# First bytes of what goes by an image's name, and is none that is read.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` fetches the image",
    b"%PDF": "a PDF", b"%!PS": "PostScript", b"8BPS": "a Photoshop file",
    b"PK\3\4": "a ZIP archive", b"\x1f\x8b": "a gzip archive", b"\0\0\1\0": "an icon (ICO)",
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"v/1\1": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"SIMPLE  =": "FITS", b"\x93NUMPY": "NumPy",
}  # fmt: skip
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}
_OR = {"HEIC": ", or pip install pillow-heif", "AVIF": ", or pip install 'pillow>=11.3'"}
_FIELDS = {1: "whole numbers", 2: "signed numbers", 3: "floats"}


class ImageError(ValueError):
    """An image that cannot be used; `reason` says why in a few words, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """How it comes out of a loader process."""
        return ImageError, (self.name, self.reason)


def open_image(file: BinaryIO, name: str) -> Image.Image:
    """The image of an open file, its header read and its size checked.

    Raises:
        ImageError: the file is none, is damaged, or too small or large; the reason says which.
    """
    Image.init()  # all of Pillow's formats
    beginning = _read(file, name)
    kind = next((kind for kind in pillow_formats() if _is_of(kind, beginning)), None)
    if kind is None:
        raise ImageError(name, f"not an image but {_what(beginning)}")
    file.seek(0)
    with pillow_reads(name):
        try:
            image = Image.OPEN[kind][0](file, name)
        except BROKEN as error:
            raise ImageError(name, _why(kind, file, error)) from error
    if reason := wrong_size(*image.size, kind):
        raise ImageError(name, reason)
    return image


@contextmanager
def pillow_reads(name: str) -> Iterator[None]:
    """While Pillow reads a file: its warnings, which do not say of which file they are, begin with
    the name, and the limit on size is segswap's, which stands in several places of Pillow.
    """
    # Both are the whole process's, and Python before 3.14 has one list of warnings for all threads.
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_megapixels() * 1_000_000
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
    for warning in caught:
        warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=3)


def _read(file: BinaryIO, name: str) -> bytes:
    try:
        return file.read(_BEGINNING)
    except OSError as error:
        raise ImageError(name, f"cannot be read ({error.strerror})") from error


def _is_of(kind: str, beginning: bytes) -> bool:
    accept = Image.OPEN[kind][1] if kind in Image.OPEN else None
    # Words say what Pillow was built without.
    return accept is not None and len(beginning) > 16 and accept(beginning[:16]) in (True, 1)


def _what(beginning: bytes) -> str:
    """What a file is that is no image."""
    if not beginning:
        return "an empty file"
    if not any(beginning):
        return "zeros alone; it was never written, or is lost"
    if beginning[4:8] == b"ftyp":
        kind = _BRANDS.get(beginning[8:12], "a film")
        return f"{kind}, which is not read here; convert it to JPEG or PNG{_OR.get(kind, '')}"
    for start, kind in _OTHERS.items():
        if beginning.startswith(start):
            return kind
    try:
        text = beginning.decode().strip()
    except UnicodeDecodeError as error:
        # A character that is cut at the end is none of text's faults.
        text = beginning[: error.start].decode() if error.start > _BEGINNING - 4 else ""
    if text and all(letter.isprintable() or letter.isspace() for letter in text):
        page = text[:200].lower()
        if "<svg" in page:
            return "an SVG drawing, which is not read; convert it to PNG"
        return "a web page" if "<html" in page or "<!doctype" in page else f"text ({text[:20]!r})"
    return f"a file of another kind (it begins with {beginning[:8].hex(' ')})"


def _why(kind: str, file: BinaryIO, error: Exception) -> str:
    """Why an image's header cannot be read."""
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror})"
    if kind == "TIFF" and (pixels := _tiff_pixels(file)):
        return f"a TIFF of {pixels}, which is not read ({error}); expected 8 or 16 bits a channel"
    return f"a {kind} that is cut or damaged ({error})"


def _tiff_pixels(file: BinaryIO) -> str | None:
    """What the pixels of a TIFF are that Pillow does not know; None where its header is broken."""
    try:
        file.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, kinds, white = tags[258], tags.get(339, (1,)), tags[262] == 0
        said = " and ".join(_FIELDS.get(kind, "unknown numbers") for kind in sorted(set(kinds)))
        return f"{len(bits)} x {bits[0]}-bit {said}{' where 0 is white' if white else ''}"
    except BROKEN:
        return None
