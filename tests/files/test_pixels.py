"""The rules of docs/images.md: which pixels are read, how they are scaled, and what is refused."""

import io
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_files import HEIGHT, WIDTH, encoded, picture, tiff, with_exif, without_segment
from numpy.typing import NDArray
from PIL import Image, ImageCms

from segswap.files.images import ImageError, read_image, read_pillow, read_size

GREY = picture()[..., 0]
UNIT = GREY.astype(np.float32) / 255


def in_three(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(plane[..., None], 3, axis=-1)


def with_value(value: float) -> NDArray[np.float32]:
    changed = UNIT.copy()
    changed[5, 7] = value
    return changed


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (GREY, {}, GREY),
        (GREY, {"white": True}, 255 - GREY),
        (GREY // 128, {"bits": 1}, GREY // 128 * 255),
        (GREY // 128, {"bits": 1, "white": True}, 255 - GREY // 128 * 255),
        (GREY // 16, {"bits": 4}, GREY // 16 * 17),
        (GREY.astype(np.uint16) * 257, {}, GREY),
        (GREY.astype(np.uint16) * 257, {"white": True}, 255 - GREY),
        (GREY.astype(np.uint16) * 257, {"white": True, "deflated": True}, 255 - GREY),
        (np.rint(GREY * (4095 / 255)).astype(np.uint16), {"bits": 12}, GREY),
        (UNIT, {}, GREY),
        (UNIT, {"deflated": True}, GREY),
        (GREY.astype(np.float32) * 4, {}, np.rint(GREY / GREY.max() * 255)),
        (np.where(GREY < 100, -0.2, UNIT).astype(np.float32), {}, np.where(GREY < 100, 0, GREY)),
        (np.zeros_like(UNIT), {}, np.zeros_like(GREY)),
    ],
    ids=[
        "8 bits", "8 white", "1 bit", "1 white", "4 bits", "16 bits", "16 white", "16 deflated",
        "12 bits", "floats", "floats deflated", "floats to 1000", "few below 0", "all 0",
    ],
)  # fmt: skip
def test_tiffs_that_are_read(values, options, expected) -> None:
    shown = read_image(tiff(values, **options)).astype(int)
    np.testing.assert_array_equal(shown, in_three(np.asarray(expected)).astype(int))


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (GREY.astype(np.uint32), {}, "a TIFF of 32-bit unsigned integers, which is not read"),
        (GREY.astype(np.int32), {}, "a TIFF of 32-bit signed integers, which is not read"),
        (GREY.astype(np.int16), {}, "a TIFF of 16-bit signed integers, which is not read"),
        (GREY.astype(np.int8), {"deflated": True}, "a TIFF of 8-bit signed integers"),
        (GREY.astype(np.uint32), {"white": True}, "1 x 32-bit whole numbers where 0 is white"),
        (UNIT, {"white": True}, "a TIFF of floats where 0 is white, which is not read"),
        (UNIT.astype(np.float64), {}, "a TIFF of 1 x 64-bit floats, which is not read"),
        (UNIT.astype(np.float16), {}, "a TIFF of 1 x 16-bit floats, which is not read"),
        (picture().astype(np.float32), {}, "a TIFF of 3 x 32-bit floats, which is not read"),
        (picture().astype(np.uint32), {}, "a TIFF of 3 x 32-bit whole numbers"),
        (with_value(np.nan), {}, "1 of its values are NaN or infinite"),
        (with_value(np.inf), {"deflated": True}, "1 of its values are NaN or infinite"),
        (with_value(-np.inf), {}, "1 of its values are NaN or infinite"),
        (with_value(1e30), {}, r"its largest float is 1e\+30, and 99 in 100 are not above 0\.[89]"),
        (with_value(300), {}, "its largest float is 300, .* nearly all would be black"),
        (with_value(-9999), {}, "its floats reach from -9999 to [01]"),
        (-1 - UNIT, {}, "its floats reach from -[12]"),
    ],
)  # fmt: skip
def test_tiffs_that_are_refused_by_name(values, options, reason: str, tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(tiff(values, **options))
    with pytest.raises(ImageError, match=rf"scan\.tif: .*{reason}"):
        read_image(tmp_path / "scan.tif")


def test_integers_in_memory_have_16_bits() -> None:
    """Pillow's mode I, which holds 32."""
    shown = read_pillow(Image.fromarray(GREY.astype(np.int32) * 257), name="given")
    np.testing.assert_array_equal(shown, in_three(GREY))
    with pytest.raises(ImageError, match="given: its values reach from 0 to 70000"):
        read_pillow(Image.fromarray(np.linspace(0, 70_000, 4096, dtype=np.int32).reshape(64, 64)),
                    name="given")  # fmt: skip


def test_colour_of_16_bits_keeps_its_upper_8() -> None:
    deep = picture().astype(np.uint16) * 256 + 200
    np.testing.assert_array_equal(read_image(tiff(deep)), picture())


def test_colours_that_are_not_read_are_named() -> None:
    lab = encoded("TIFF", Image.merge("LAB", Image.fromarray(picture()).split()))
    with pytest.raises(ImageError, match="its colours are LAB, which is not read"):
        read_image(lab)


@pytest.mark.parametrize("quality", [95, 60])
def test_cmyk_with_and_without_adobes_marker(quality: int) -> None:
    """Adobe's programs store the inks inverted; without their marker they are as they are."""
    inks = Image.fromarray(picture()).convert("CMYK")
    expected = np.asarray(inks.convert("RGB")).astype(int)
    inverted = encoded("JPEG", inks, quality=quality)  # so does Pillow
    opposite = Image.frombytes("CMYK", inks.size, (255 - np.asarray(inks)).tobytes())
    plain = without_segment(encoded("JPEG", opposite, quality=quality), 0xEE)
    for data in (inverted, plain):
        with Image.open(io.BytesIO(data)) as image:
            assert ("adobe" in image.info) == (data is inverted)
            image.load()
            given = read_pillow(image, name="given")
        shown = read_image(data)
        assert np.abs(shown - expected).mean() < 12
        np.testing.assert_array_equal(given, shown)


def test_of_several_pictures_the_first_is_taken() -> None:
    first, other = Image.fromarray(picture()), Image.fromarray(255 - picture())
    alone = {kind: read_image(encoded(kind, first)) for kind in ("PNG", "TIFF", "GIF", "WEBP")}
    alone["MPO"] = read_image(encoded("JPEG", first))
    for kind, expected in alone.items():
        shown = read_image(encoded(kind, first, save_all=True, append_images=[other]))
        assert np.abs(shown.astype(int) - expected).mean() < 10, kind


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_what_is_transparent_lies_over_white(kind: str) -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, :64] = 255
    image = Image.fromarray(np.dstack([picture(), alpha]))
    shown = read_image(encoded(kind, image, **({"lossless": True} if kind == "WEBP" else {})))
    assert (shown[:, 64:] == 255).all()
    assert np.abs(shown[:, :64].astype(int) - picture()[:, :64]).mean() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_profiles_change_nothing(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    np.testing.assert_array_equal(
        read_image(encoded(kind, icc_profile=profile)), read_image(encoded(kind))
    )


def orientation(number: int) -> bytes:
    """EXIF that says nothing else."""
    return b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, number) + bytes(4)


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (b"Exif\0\0" + orientation(6), True),
        (b"Exif\0\0Exif\0\0" + orientation(6), True),
        (b"Exif\0\0" * 3 + orientation(6), True),
        (b"Exif\0\0" + orientation(9), False),
        (b"Exif\0\0" + orientation(6)[:9], False),
        (b"Exif\0\0junk and more of it", False),
        (b"Exif\0\0", False),
    ],
    ids=["once", "twice", "three times", "no such turn", "cut", "junk", "empty"],
)
def test_exif_as_programs_write_it(exif: bytes, turned: bool) -> None:
    """The same with every version of Pillow."""
    plain = encoded("JPEG")
    expected = np.rot90(read_image(plain), -1) if turned else read_image(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(read_image(with_exif(plain, exif)), expected)
        np.testing.assert_array_equal(
            read_image(with_exif(plain, exif), exif=False), read_image(plain)
        )


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("deflated", [False, True])
def test_a_tiff_is_turned_once(number: int, deflated: bool, tmp_path: Path) -> None:
    """Pillow turns it as well."""
    stored = picture()
    (tmp_path / "a.tif").write_bytes(tiff(stored, orientation=number, deflated=deflated))
    turned = encoded("PNG", exif=b"Exif\0\0" + orientation(number))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), read_image(turned))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", exif=False), stored)
    assert read_size(tmp_path / "a.tif") == (WIDTH, HEIGHT)


def test_warnings_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "camera.jpg"
    cut = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 2, 0x0112, 3, 1, 6)
    path.write_bytes(with_exif(encoded("JPEG"), cut))
    with pytest.warns(UserWarning, match=rf"^{re.escape(str(path))}: ") as caught:
        read_image(path)
    assert all(str(warning.message).startswith(f"{path}: ") for warning in caught)
