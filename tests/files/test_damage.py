"""A picture whose file is cut or damaged is never used, whatever a decoder would make of it."""

import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from made_files import encoded, picture, tiff
from PIL import Image, ImageFile, features

from segswap.files.images import ImageError, read_image, read_label_map, read_labels, read_pillow

BLACK_AND_WHITE = Image.fromarray(picture()).convert("1")
FILES = {
    "baseline": encoded("JPEG", quality=90),
    "progressive": encoded("JPEG", quality=90, progressive=True),
    "restart markers": encoded("JPEG", quality=90, restart_marker_blocks=2),
    "grey": encoded("JPEG", Image.fromarray(picture()[..., 0]), quality=90),
    "CMYK": encoded("JPEG", Image.fromarray(picture()).convert("CMYK"), quality=90),
    "MPO": encoded("MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=90),
    "PNG": encoded("PNG"),
    "palette": encoded("PNG", Image.fromarray(picture()).quantize(64)),
    "GIF": encoded("GIF", Image.fromarray(picture()).quantize(64)),
    "WebP": encoded("WEBP", quality=90),
    "lossless WebP": encoded("WEBP", lossless=True),
    "LZW": encoded("TIFF", compression="tiff_lzw"),
    "deflate": encoded("TIFF", compression="tiff_adobe_deflate"),
    "JPEG in TIFF": encoded("TIFF", compression="jpeg", quality=90),
    "fax": encoded("TIFF", BLACK_AND_WHITE, compression="group4"),
    "JPEG 2000": encoded("JPEG2000"),
    "BMP": encoded("BMP"), "PPM": encoded("PPM"), "raw TIFF": encoded("TIFF"),
}  # fmt: skip
if features.check("avif"):
    FILES["AVIF"] = encoded("AVIF", quality=90)
JPEGS = ("baseline", "progressive", "restart markers", "grey", "CMYK", "MPO")
# Nothing in them tells a black half from one that was lost.
UNGUARDED = ("BMP", "PPM", "raw TIFF")
WITHOUT_CHECKSUM = (*UNGUARDED, "WebP", "lossless WebP", "fax", "JPEG 2000", "AVIF")


def zeros_behind(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def zeros_between(data: bytes) -> bytes:
    start = len(data) // 4
    return data[:start] + bytes(len(data) // 2) + data[start + len(data) // 2 :]


def junk_between(data: bytes) -> bytes:
    size, start = len(data) // 8, len(data) // 4
    return data[:start] + np.random.default_rng(1).bytes(size) + data[start + size :]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def without_its_last_part(data: bytes) -> bytes:
    return data[: -len(data) // 8]


def ended(data: bytes) -> bytes:
    return data[: len(data) // 3] + b"\xff\xd9"


CASES = [
    *((name, spoil) for name in FILES for spoil in (cut, without_its_last_part) if name != "MPO"),
    *((name, spoil) for name in FILES if name not in UNGUARDED
      for spoil in (zeros_behind, zeros_between)),
    *((name, junk_between) for name in FILES if name not in WITHOUT_CHECKSUM),
    *((name, ended) for name in JPEGS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spoil"), CASES, ids=[f"{name}-{spoil.__name__}" for name, spoil in CASES]
)
def test_a_damaged_file_is_not_used(name: str, spoil, tmp_path: Path) -> None:
    read_image(FILES[name])
    path = tmp_path / "spoilt.jpg"
    path.write_bytes(spoil(FILES[name]))
    with pytest.raises(ImageError, match=r"spoilt\.jpg: .*(decoded|cut or damaged) \(.*[a-z]"):
        read_image(path)


@pytest.mark.parametrize("name", FILES)
def test_bytes_behind_the_end_do_no_harm(name: str) -> None:
    for more in (b"\r\n", b"more" * 20, bytes(5000)):
        np.testing.assert_array_equal(read_image(FILES[name] + more), read_image(FILES[name]))


@pytest.mark.parametrize("scans", range(1, 10))
def test_a_progressive_jpeg_has_all_its_scans(scans: int) -> None:
    """It is whole up to a scan's end: libjpeg says nothing, and gives a blurred picture."""
    data = FILES["progressive"]
    assert data.count(b"\xff\xda") == 10
    end = -1
    for _ in range(scans + 1):
        end = data.index(b"\xff\xda", end + 1)
    with pytest.raises(ImageError, match="the progressive JPEG ends before its last scans"):
        read_image(data[: data.rindex(b"\xff\xc4", 0, end)] + b"\xff\xd9")


def test_warnings_without_consequence_do_no_harm() -> None:
    newer = FILES["baseline"].replace(b"JFIF\0\1", b"JFIF\0\2")
    assert newer != FILES["baseline"]
    np.testing.assert_array_equal(read_image(newer), read_image(FILES["baseline"]))
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(ended(newer))


def test_a_png_with_a_wrong_checksum_is_refused() -> None:
    data = bytearray(FILES["PNG"])
    data[data.index(b"IDAT") + 200] ^= 1
    with pytest.raises(ImageError, match="the PNG is damaged between bytes"):
        read_image(bytes(data))


def test_what_is_said_does_not_depend_on_pillows_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs in the process let Pillow read what is cut."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("baseline", "PNG", "WebP", "LZW"):
        with pytest.raises(ImageError, match=r"decoded|cut or damaged"):
            read_image(cut(FILES[name]))


def test_label_maps_are_read_as_strictly(tmp_path: Path) -> None:
    labels = encoded("PNG", Image.fromarray(picture()[..., 0]))
    read_labels(labels, name="mask")
    for spoil in (zeros_behind, cut):
        (tmp_path / "labels.png").write_bytes(spoil(labels))
        with pytest.raises(ImageError, match="mask: cannot be decoded"):
            read_labels(spoil(labels), name="mask")
        with pytest.raises(ImageError, match=r"labels\.png: cannot be decoded"):
            read_label_map(tmp_path / "labels.png")


@pytest.mark.parametrize("name", ["baseline", "progressive", "PNG", "WebP", "LZW", "GIF"])
def test_images_that_pillow_opened_are_read_as_strictly(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as image:
        np.testing.assert_array_equal(read_pillow(image, name="given"), read_image(FILES[name]))
    if name not in ("WebP", "LZW"):  # which Pillow does not even open
        with (
            Image.open(io.BytesIO(zeros_behind(FILES[name]))) as image,
            pytest.raises(ImageError, match="given: cannot be decoded"),
        ):
            read_pillow(image, name="given")


def test_no_error_of_the_program_is_taken_for_a_broken_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with an OpenCV that knows not the flag it is given."""

    def broken(*_: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr("segswap.files.images.to_rgb", broken)
    with pytest.raises(AttributeError, match="no such thing"):
        read_image(FILES["PNG"])
    monkeypatch.setattr("segswap.files.images.decode_jpeg", broken)
    with pytest.raises(AttributeError, match="no such thing"):
        read_image(FILES["baseline"])


@pytest.mark.parametrize("name", FILES)
def test_spoilt_bytes_are_errors_and_nothing_else(name: str) -> None:
    random = np.random.default_rng(2)
    for _ in range(15):
        data = bytearray(FILES[name])
        for place in random.integers(0, [40, 400, len(data)], 3):
            data[place % len(data)] = random.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(ImageError):
                read_image(bytes(data))


def test_what_ends_early_says_so() -> None:
    data = tiff(picture(), deflated=True)
    with pytest.raises(ImageError, match="incomplete or truncated stream"):
        read_image(data[:-100])
    with pytest.raises(ImageError, match="the PNG is cut short by 88 bytes"):
        read_image(FILES["PNG"][:-100])  # 12 of them its last chunk's
