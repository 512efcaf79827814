"""Images of every kind become RGB, and what is none says why."""

import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segswap.files.images import (
    ImageError,
    encode_jpeg,
    encode_png,
    read_hashed_image,
    read_image,
    read_size,
)

HEIGHT, WIDTH = 48, 64


def colour() -> np.ndarray:
    """Red to the right, green downwards, blue even: uint8 (48, 64, 3)."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.stack([columns * 4, rows * 5, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


def grey() -> np.ndarray:
    return colour()[..., 0]


def assert_shows(path: Path, expected: np.ndarray, tolerance: float = 0) -> None:
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert read_size(path) == (WIDTH, HEIGHT)
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


def in_three(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.png", 0), ("a.bmp", 0), ("a.tif", 0), ("a.jpg", 3), ("a.JPEG", 3), ("a.webp", 5)],
)
def test_colour(tmp_path: Path, name: str, tolerance: float) -> None:
    Image.fromarray(colour()).save(tmp_path / name, quality=95)
    assert_shows(tmp_path / name, colour(), tolerance)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_greyscale(tmp_path: Path, name: str) -> None:
    Image.fromarray(grey()).save(tmp_path / name, quality=95)
    assert_shows(tmp_path / name, in_three(grey()), 2)


def test_palette(tmp_path: Path) -> None:
    for name in ("a.png", "a.gif"):
        Image.fromarray(colour()).quantize(255).save(tmp_path / name)
        assert_shows(tmp_path / name, colour(), 6)


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(grey() > 100).save(tmp_path / "a.png")
    assert_shows(tmp_path / "a.png", in_three((grey() > 100) * 255))


def test_cmyk(tmp_path: Path) -> None:
    Image.fromarray(colour()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert_shows(tmp_path / "a.jpg", colour(), 4)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits(tmp_path: Path, name: str) -> None:
    Image.fromarray(grey().astype(np.uint16) * 257).save(tmp_path / name)
    assert_shows(tmp_path / name, in_three(grey()))


def test_floats(tmp_path: Path) -> None:
    Image.fromarray(grey().astype(np.float32)).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.max() == 255
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(colour()).convert("RGBA")
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, :32] = 255
    image.putalpha(Image.fromarray(alpha))
    if mode == "PA":
        image.quantize(200).save(tmp_path / "a.png")
    else:
        image.convert(mode).save(tmp_path / "a.png")
    shown = read_image(tmp_path / "a.png")
    assert (shown[:, 32:] == 255).all()
    assert np.ptp(shown[:, :32]) > 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """As it is meant to be seen; or, for COCO, as it is stored."""
    upright = colour()
    undo = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2), 6: np.rot90,
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, 3),
    }  # fmt: skip
    stored = np.ascontiguousarray(undo[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", exif=False), stored)
    assert read_size(tmp_path / "a.png") == (stored.shape[1], stored.shape[0])


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(colour()).resize((200, 200)).save(file, "jpeg")
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header says a size that its data does not have."""
    file = io.BytesIO()
    Image.fromarray(grey()).save(file, "png")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image but an empty file"),
        (b"this is a text file\n" * 50, r"not an image but text \('this is a text file"),
        ("Grüße ".encode() * 100, r"not an image but text \('Grüße "),
        (b"\n<!DOCTYPE html><title>404</title>", "not an image but a web page"),
        (b"<?xml version='1.0'?><svg></svg>", "not an image but an SVG drawing, .* convert it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; `git lfs pull`"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n", "not an image but PostScript"),
        (b"%PDF-1.7\n\xe2\xe3", "not an image but a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image but HEIC, .* convert it to JPEG"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "not an image but a film"),
        (bytes(10_000), "not an image but zeros alone"),
        (bytes(range(200, 256)), r"a file of another kind \(it begins with c8 c9 ca cb"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "a JPEG that is cut or damaged"),
        (b"\xff\xd8\xff", "cut or damaged|another kind"),
        (b"\x89PNG\r\n\x1a\n" + b"junk" * 30, "a PNG that is cut or damaged"),
        (jpeg()[: len(jpeg()) // 2], "cannot be decoded"),
        (png_of_size(20_000, 20_000), "over 100 megapixels"),
        (png_of_size(10_001, 10_000), "over 100 megapixels"),
        (png_of_size(31, 400), r"a side under 32 px \(31 x 400\)"),
        (png_of_size(1, 1), "a side under 32 px"),
    ],
    ids=[
        "empty",
        "text",
        "text that is cut in a letter",
        "web page",
        "SVG",
        "LFS",
        "PostScript",
        "PDF",
        "HEIC",
        "film",
        "zeros",
        "unknown",
        "header only",
        "three bytes",
        "junk",
        "truncated",
        "bomb",
        "just over",
        "thin",
        "dot",
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(tmp_path / "a.jpg")
    assert str(tmp_path) not in caught.value.reason
    assert str(tmp_path / "a.jpg") in str(caught.value)


def test_missing_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path / "b.jpg")


def test_an_image_comes_with_the_hash_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    pixels, sha256 = read_hashed_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(pixels, read_image(tmp_path / "a.jpg"))
    assert sha256 == hashlib.sha256(jpeg()).hexdigest()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.jpg").write_text("no image")
    for name, reason in (
        ("none.jpg", "missing"), ("folder.jpg", "is a folder, not an image"),
        ("text.jpg", "not an image but text ('no image')"),
    ):  # fmt: skip
        with pytest.raises(ImageError, match=f"{name}: {re.escape(reason)}") as caught:
            read_hashed_image(tmp_path / name)
        assert caught.value.reason == reason


def test_bytes() -> None:
    np.testing.assert_array_equal(read_image(encode_png(colour())), colour())
    with pytest.raises(ImageError, match="cover: not an image"):
        read_image(b"text", name="cover")


def test_encoders_keep_the_order_of_channels() -> None:
    np.testing.assert_array_equal(read_image(encode_png(colour())), colour())
    shown = read_image(encode_jpeg(colour(), 95)).astype(int)
    assert np.abs(shown - colour()).mean() < 3
    plane = np.array(Image.open(io.BytesIO(encode_png(grey()))))
    np.testing.assert_array_equal(plane, grey())


def test_a_plain_jpeg_is_what_pillow_makes_of_it(data: Path) -> None:
    for path in sorted((data / "coco_mini" / "val2017").glob("*.jpg"))[:20]:
        with Image.open(path) as image:
            assert np.array_equal(read_image(path, exif=False), np.array(image.convert("RGB")))
