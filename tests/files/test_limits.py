"""How large a picture may be, and how one allows for more."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_files import encoded, picture
from PIL import Image

from segswap.files.images import ImageError, read_image, read_size
from segswap.files.limits import VARIABLE, allowing, max_megapixels


@pytest.fixture(autouse=True)
def _as_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def large(width: int, height: int) -> bytes:
    """A PNG whose header says a size that its data does not have."""
    data = bytearray(encoded("PNG", Image.fromarray(picture()[..., 0])))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_the_message_says_what_to_do_and_it_works(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(large(20_000, 10_000))
    with pytest.raises(ImageError) as caught:
        read_size(path)
    assert caught.value.reason == (
        "over 100 megapixels (20000 x 10000); --max-megapixels 200, or SEGSWAP_MAX_MEGAPIXELS=200, "
        "reads it in up to 5.0 GB of memory"
    )
    with allowing(199), pytest.raises(ImageError, match="over 199 megapixels"):
        read_size(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow has a limit of its own, and warns below it
        with allowing(200):
            assert read_size(path) == (20_000, 10_000)
    assert max_megapixels() == 100


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_pillows_own_limit_is_not_asked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs in the process may have set it; nor is it changed for them."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(encoded(kind)).shape == picture().shape
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("told", ["", "many", "0", "-3", "1.5", "1e3"])
def test_an_environment_that_says_no_number_is_told_so(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, told)
    with pytest.raises(RuntimeError, match=f"{VARIABLE} is '{told}'; expected a whole number"):
        read_image(encoded("JPEG"))


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "150")
    with allowing(None):
        assert max_megapixels() == 150
    with allowing(300):
        assert max_megapixels() == 300
    assert max_megapixels() == 150


def test_wide_pictures_are_read_whole() -> None:
    wide = np.zeros((32, 40_000, 3), np.uint8)
    wide[:, ::2] = 255
    np.testing.assert_array_equal(read_image(encoded("PNG", Image.fromarray(wide))), wide)
