"""Images from files and bytes to RGB arrays and back, with errors that say what is wrong."""

import hashlib
import io
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from segswap.files import storage
from segswap.files.formats import pillow_formats
from segswap.files.opening import UnreadableError, open_regular
from segswap.files.storage import PathLike
from segswap.files.stores import StorageError

_AT_A_TIME = 32  # requests for the sizes of images at URLs: nearly all of their time is waiting
_HEAD = 1 << 16  # bytes that hold the header of nearly every image
MAX_PIXELS = 100_000_000
MIN_SIDE = 32


class ImageError(ValueError):
    """An image that cannot be used; `reason` says why in a few words, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """How it comes out of a loader process."""
        return ImageError, (self.name, self.reason)


def read_size(path: PathLike, *, upright: bool = False) -> tuple[int, int]:
    """Width and height from the file's header, checked against the limits on size.

    Of a URL only the beginning is read, unless the header goes on behind it.

    Args:
        upright: of the image turned upright by its EXIF orientation, not as it is stored.

    Raises:
        ImageError: missing, not an image, a side under 32 px, or over 100 megapixels.
        StorageError: its store cannot be read.
    """
    name = str(path)
    if storage.is_url(path) and not upright:  # EXIF may stand at the end
        head = _fetch(path, _HEAD)
        try:
            with _open(io.BytesIO(head), name) as image:
                return image.size
        except ImageError:
            if len(head) < _HEAD:
                raise
    with _file(path, name) as file, _open(file, name) as image:
        return _upright_size(image, name) if upright else image.size


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
    laid over white.

    Args:
        source: a path, a URL, or the encoded bytes.
        name: what errors call the image; by default the path.
        exif: turn the image upright by its EXIF orientation; given a width and height, only where
            it has that size then, so that it comes in the frame in which it was annotated.

    Raises:
        ImageError: missing, not an image, broken, a side under 32 px, or over 100 megapixels.
        StorageError: its store cannot be read; this says nothing about the image.
    """
    name = name or ("image bytes" if isinstance(source, bytes) else str(source))
    try:
        with _file(source, name) as file, _open(file, name) as image:
            turned = bool(exif) and _orientation(image) != 1
            if turned and exif is not True:
                turned = _upright_size(image, name) == exif
            if image.format == "JPEG" and image.mode == "RGB" and not turned:
                file.seek(0)
                pixels = _decode_jpeg(file.read())
                if pixels is not None:
                    return pixels
            return to_rgb(ImageOps.exif_transpose(image) if turned else image)
    except (ImageError, StorageError):
        raise
    except Exception as error:  # Pillow's decoders raise many kinds on broken data
        raise ImageError(name, f"cannot be decoded ({error})") from error


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


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """The common case, faster than through Pillow and with the same result: a whole RGB JPEG.

    None where OpenCV gives up, or where the end is missing, which it would not tell.
    """
    if data.rstrip(b"\0")[-2:] != b"\xff\xd9":
        return None
    pixels = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
    return None if pixels is None or pixels.ndim != 3 else pixels.astype(np.uint8, copy=False)


def read_labels(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Decode a label map, an 8-bit greyscale PNG: uint8 (H, W).

    Raises:
        ImageError: of another kind, broken, a side under 32 px, or over 100 megapixels.
    """
    try:
        with _open(io.BytesIO(data), name) as image:
            if image.mode != "L":
                raise ImageError(name, f"not an 8-bit greyscale image but {image.mode}")
            return np.array(image)
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(name, f"cannot be decoded ({error})") from error


def read_label_map(path: PathLike) -> NDArray[np.int32]:
    """Decode a label map of any size of labels, a PNG with one channel or a palette: int32 (H, W).

    Raises:
        ImageError: missing, of another kind, broken, a side under 32 px, or over 100 megapixels.
        StorageError: its store cannot be read.
    """
    name = str(path)
    try:
        with _file(path, name) as file, _open(file, name) as image:
            if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
                raise ImageError(name, f"not one label a pixel but {image.mode}")
            return np.array(image).astype(np.int32)
    except (ImageError, StorageError):
        raise
    except Exception as error:  # as above
        raise ImageError(name, f"cannot be decoded ({error})") from error


def _open(file: BinaryIO, name: str) -> Image.Image:
    """The image of an open file, its header read and its size checked."""
    try:
        image = Image.open(file, formats=pillow_formats())
    except Image.DecompressionBombError as error:
        raise ImageError(name, f"over {MAX_PIXELS // 10**6} megapixels") from error
    except Exception as error:  # as above
        raise ImageError(name, "not an image") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(name, f"over {MAX_PIXELS // 10**6} megapixels ({width} x {height})")
    if min(width, height) < MIN_SIDE:
        raise ImageError(name, f"a side under {MIN_SIDE} px ({width} x {height})")
    return image


def _orientation(image: Image.Image) -> int:
    """How EXIF says an open image is turned, from 2 to 8; 1 where it is upright."""
    told = image.getexif().get(ExifTags.Base.Orientation, 1)
    return told if told in range(2, 9) else 1


def _upright_size(image: Image.Image, name: str) -> tuple[int, int]:
    """Width and height of an open image when it is turned upright."""
    try:
        return image.size[::-1] if _orientation(image) >= 5 else image.size
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        # A PNG is decoded to find what stands at its end.
        raise ImageError(name, f"cannot be decoded ({error})") from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An image of any mode as RGB, as `read_image` converts it: uint8 (H, W, 3)."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, np.float64)
        # Files of modes I and I;16 hold 16-bit values; F has no range of its own.
        top = 65535.0 if image.mode.startswith("I") else max(float(grey.max()), 1.0)
        grey8 = np.clip(np.rint(grey / top * 255), 0, 255).astype(np.uint8)
        return np.repeat(grey8[..., None], 3, axis=-1)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


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
