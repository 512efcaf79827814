"""Images from files and bytes to RGB arrays and back, with errors that say what is wrong."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segswap.files import storage
from segswap.files.damage import check_whole
from segswap.files.headers import BROKEN, ImageError, open_image, pillow_reads
from segswap.files.jpeg import decode_jpeg
from segswap.files.opening import UnreadableError, open_regular
from segswap.files.pixels import PixelsError, as_stored, orientation, stored_size, to_rgb, turned
from segswap.files.storage import PathLike

_AT_A_TIME = 32  # requests for the sizes of images at URLs: nearly all of their time is waiting
_HEAD = 1 << 16  # bytes that hold the header of nearly every image


def read_size(path: PathLike, *, upright: bool = False) -> tuple[int, int]:
    """Width and height from the file's header, checked against the limits on size.

    Of a URL only the beginning is read, unless the header goes on behind it.

    Args:
        upright: of the image turned upright by its EXIF orientation, not as it is stored.

    Raises:
        ImageError: missing, not an image, a side under 32 px, or over the limit on size.
        StorageError: its store cannot be read.
    """
    name = str(path)
    if storage.is_url(path) and not upright:  # EXIF may stand at the end
        head = _fetch(path, _HEAD)
        try:
            with open_image(io.BytesIO(head), name) as image:
                return stored_size(image)
        except ImageError:
            if len(head) < _HEAD:
                raise
    with _file(path, name) as file, open_image(file, name) as image:
        size = stored_size(image)
        return _turned_size(size, orientation(image, name)) if upright else size


def read_sizes(paths: Iterable[PathLike]) -> Iterator[tuple[int, int] | ImageError]:
    """`read_size` of many files, in order, errors as values; those at URLs, many at a time."""

    def size(path: PathLike) -> tuple[int, int] | ImageError:
        try:
            return read_size(path)
        except ImageError as error:
            return error

    paths = list(paths)
    if not any(map(storage.is_url, paths)):
        yield from map(size, paths)
        return
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        yield from pool.map(size, paths)


def read_image(
    source: PathLike | bytes, *, name: str | None = None, exif: bool | tuple[int, int] = True
) -> NDArray[np.uint8]:
    """Decode an image of any common kind to RGB: uint8 (H, W, 3).

    Greyscale and palette images are expanded, CMYK converted, 16-bit scaled to 8, transparency
    laid over white: docs/images.md. Nothing is decoded of a file that is cut or damaged.

    Args:
        source: a path, a URL, or the encoded bytes.
        name: what errors call the image; by default the path.
        exif: turn the image upright by its EXIF orientation; given a width and height, only where
            it has that size then, so that it comes in the frame in which it was annotated.

    Raises:
        ImageError: missing, not an image, broken, a side under 32 px, or over the limit on size.
        StorageError: its store cannot be read; this says nothing about the image.
    """
    name = name or ("image bytes" if isinstance(source, bytes) else str(source))
    with _file(source, name) as file, open_image(file, name) as image:
        turn = orientation(image, name)
        if image.format in ("JPEG", "MPO"):
            with _decoding(name):
                pixels = decode_jpeg(_whole(file), image)
        else:
            _load(image, file, name)
            pixels = _pixels(image, name)
            if image.format == "TIFF":  # Pillow has turned it
                pixels = as_stored(pixels, turn)
        height, width = pixels.shape[:2]
        wanted = exif is True or (exif and _turned_size((width, height), turn) == exif)
        return turned(pixels, turn) if wanted else pixels


def _turned_size(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Width and height of an image that was stored with these, when it is upright."""
    return size[::-1] if turn >= 5 else size


def read_pillow(image: Image.Image, *, name: str) -> NDArray[np.uint8]:
    """An image of Pillow's as `read_image` gives its file: uint8 (H, W, 3).

    Raises:
        ImageError: it is of a kind that is not read, or its file, not yet loaded, is damaged.
    """
    file = getattr(image, "fp", None)  # until the pixels are loaded
    with _decoding(name):
        if file is not None:
            at = file.tell()
            if image.format in ("JPEG", "MPO"):
                decode_jpeg(_whole(file), image)
            else:
                check_whole(_whole(file), image)
            file.seek(at)
        with pillow_reads(name):
            image.load()
    # A TIFF is turned by now, and says so.
    return turned(_pixels(image, name), orientation(image, name))


def read_hashed_image(
    path: PathLike, *, exif: bool | tuple[int, int] = True
) -> tuple[NDArray[np.uint8], str]:
    """An image file as `read_image` gives it, and the SHA-256 of its bytes, read only once.

    Raises:
        ImageError: as of `read_image`; the file cannot be read.
        StorageError: its store cannot be read; this says nothing about the image.
    """
    name = str(path)
    try:
        with _file(path, name) as file:
            data = file.read()
    except storage.StorageError:
        raise
    except OSError as error:
        raise ImageError(name, f"cannot be read ({error})") from error
    return read_image(data, name=name, exif=exif), hashlib.sha256(data).hexdigest()


def pixel_hash(image: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's size and pixels, uint8 (H, W, 3), whatever file it came from."""
    start = hashlib.sha256(str(image.shape).encode())
    start.update(image.tobytes())
    return start.hexdigest()


def _file(source: PathLike | bytes, name: str) -> BinaryIO:
    if not isinstance(source, bytes) and storage.is_url(source):
        source = _fetch(source)
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return open_regular(source, "an image")
    except UnreadableError as error:
        raise ImageError(name, error.reason) from error


def _fetch(url: PathLike, first: int | None = None) -> bytes:
    try:
        return storage.read_bytes(url, first)
    except FileNotFoundError as error:
        raise ImageError(str(url), "missing") from error


def read_labels(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Decode a label map, an 8-bit greyscale PNG: uint8 (H, W).

    Raises:
        ImageError: of another kind, broken, a side under 32 px, or over the limit on size.
    """
    file = io.BytesIO(data)
    with open_image(file, name) as image:
        if image.mode != "L":
            raise ImageError(name, f"not an 8-bit greyscale image but {image.mode}")
        _load(image, file, name)
        return np.array(image)


def read_label_map(path: PathLike) -> NDArray[np.int32]:
    """Decode a label map of any size of labels, a PNG with one channel or a palette: int32 (H, W).

    Raises:
        ImageError: missing, of another kind, broken, a side under 32 px, or over the limit on size.
        StorageError: its store cannot be read.
    """
    name = str(path)
    with _file(path, name) as file, open_image(file, name) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise ImageError(name, f"not one label a pixel but {image.mode}")
        _load(image, file, name)
        return np.array(image).astype(np.int32)


def _load(image: Image.Image, file: BinaryIO, name: str) -> None:
    """Decode the pixels of an open file that is no JPEG."""
    at = file.tell()
    with _decoding(name):
        check_whole(_whole(file), image)
        file.seek(at)
        with pillow_reads(name):
            image.load()


def _whole(file: BinaryIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    file.seek(0)
    return file.read()


def _pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    try:
        return to_rgb(image)
    except PixelsError as error:
        raise ImageError(name, str(error)) from error


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """What decoders raise on broken data, as an ImageError."""
    try:
        yield
    except BROKEN as error:
        code = str(error).lstrip("-").isdigit()  # of libtiff's
        said = "its data is damaged" if code else error
        raise ImageError(name, f"cannot be decoded ({said})") from error


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """RGB uint8 (H, W, 3) to JPEG."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise RuntimeError(f"OpenCV could not encode a JPEG of shape {image.shape}")
    return data.tobytes()


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W) or RGB (H, W, 3) to PNG."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Label maps are smaller without PNG's filters, and sooner done.
    plain = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if image.ndim == 2 else []
    done, data = cv2.imencode(".png", pixels, plain)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a PNG of shape {image.shape}")
    return data.tobytes()
