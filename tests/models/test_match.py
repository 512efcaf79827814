"""Model.match: any two images, of any kind, size and shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import textured
from made_models import save_model
from made_pairs import image_files, soft_texture
from PIL import Image

import segswap
from segswap import geometry
from segswap.files.images import ImageError
from segswap.models.match import Match
from segswap.models.model import Model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model; not to be changed."""
    return save_model(tmp_path_factory.mktemp("models") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return segswap.load(run)


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    return image_files(tmp_path)


def check_match(found: Match, source: tuple[int, int], target: tuple[int, int]) -> None:
    for mask, size in ((found.source_mask, source), (found.target_mask, target)):
        assert mask.shape == size
        assert mask.dtype == np.float32
        assert 0 <= mask.min() <= mask.max() <= 1
    assert np.isfinite(found.score)


def test_masks_are_at_each_images_own_size_and_points_go_there_and_back(
    model: Model, images: tuple[Path, Path]
) -> None:
    found = model.match(*images)
    check_match(found, (70, 120), (150, 90))
    for points in (found.points, found.points_back):
        assert points(np.array([[0.5, 0.5], [0.1, 0.9], [0, 1]])).shape == (3, 2)
        assert points(np.zeros((0, 2))).shape == (0, 2)


def test_points_of_an_image_and_its_moved_copy(model: Model) -> None:
    # The copy is a window into the same picture, of another shape.
    picture = soft_texture(160, 3)
    source, target = picture[:128, :128], picture[32:160, 16:144]
    found = model.match(source, target)
    # On this coarse grid positions are rough; moved the other way they would be 0.25 off.
    points = geometry.cell_centres(10, 10).reshape(-1, 2) * (0.8, 0.7) + (0.15, 0.27)
    expected = points - np.array([16, 32]) / 128
    assert np.median(np.abs(found.points(points) - expected)) < 0.05
    assert np.median(np.abs(found.points_back(expected) - points)) < 0.05


def test_files_arrays_and_pil_images_are_the_same(model: Model, tmp_path: Path) -> None:
    source, target = textured(64, 96, 0), textured(80, 64, 1)
    path = tmp_path / "source.png"
    Image.fromarray(source).save(path)
    expected = model.match(source, target)
    for image in (path, str(path), Image.fromarray(source), Image.open(path)):
        found = model.match(image, target)
        assert np.array_equal(found.source_mask, expected.source_mask)
        assert found.score == expected.score


def modes() -> dict[str, Image.Image]:
    colour = Image.fromarray(textured(64, 96, 0))
    grey = np.asarray(colour.convert("L"))
    return {
        "L": colour.convert("L"),
        "P": colour.convert("P"),
        "CMYK": colour.convert("CMYK"),
        "RGBA": colour.convert("RGBA"),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
        "1": colour.convert("1"),
    }


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "I;16", "1"])
def test_images_of_every_mode(mode: str, model: Model, tmp_path: Path) -> None:
    image = modes()[mode]
    assert image.mode == mode
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    target = textured(64, 64, 1)
    from_file, from_memory = model.match(path, target), model.match(image, target)
    check_match(from_file, (64, 96), (64, 64))
    assert np.array_equal(from_file.source_mask, from_memory.source_mask)
    if mode in ("L", "I;16"):
        # 16 bits are scaled to 8, so that it is the same picture.
        plain = model.match(np.asarray(modes()["L"]), target)
        assert np.array_equal(from_file.source_mask, plain.source_mask)


def test_a_picture_is_turned_upright_by_its_exif_orientation(model: Model, tmp_path: Path) -> None:
    upright = textured(64, 96, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    path = tmp_path / "phone.png"
    Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif)
    found, expected = (model.match(image, textured(64, 64, 1)) for image in (path, upright))
    assert found.source_mask.shape == (64, 96)
    assert np.array_equal(found.source_mask, expected.source_mask)


def test_what_is_no_image_is_refused_by_name(model: Model, tmp_path: Path) -> None:
    good = textured(64, 64, 0)
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    with pytest.raises(ImageError, match=r"notes\.jpg: not an image"):
        model.match(text, good)
    with pytest.raises(ImageError, match=r"none\.png: missing"):
        model.match(good, tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        model.match(tmp_path, good)
    Image.fromarray(good).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    with pytest.raises(ImageError, match=r"cut\.png: cannot be decoded"):
        model.match(tmp_path / "cut.png", good)
    with pytest.raises(ValueError, match=r"cut\.png: cannot be decoded"):
        model.match(good, Image.open(tmp_path / "cut.png"))
    for wrong, message in (
        (good.astype(np.float32), "source image is an array of float32"),
        (good / 255, "source image is an array of float64"),
        (good > 9, "source image is an array of bool"),
        (good[..., :2], r"\(64, 64, 2\)"),
        (good[None], r"\(1, 64, 64, 3\)"),
        (Image.new("RGB", (0, 5)), r"\(5, 0, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (None, "source image is of type NoneType"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), "source image is of type Tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            model.match(wrong, good)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_image_is_the_same_as_path_and_from_pillow(
    orientation: int, suffix: str, model: Model, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path, good = tmp_path / f"a.{suffix}", textured(64, 96, 0)
    Image.fromarray(textured(64, 96, 1)).save(path, exif=exif)
    found = model.match(path, good)
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == orientation
        again = model.match(image, good)
    np.testing.assert_array_equal(again.source_mask, found.source_mask)
    assert found.source_mask.shape == ((96, 64) if orientation == 6 else (64, 96))
    assert again.score == found.score


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (400, 20), (33, 2000)])
def test_any_shape_is_matched(height: int, width: int, model: Model) -> None:
    picture = textured(max(height, 8), max(width, 8), 3)[:height, :width]
    found = model.match(picture, textured(64, 64, 1))
    check_match(found, (height, width), (64, 64))
    assert np.isfinite(found.points([[0.5, 0.5]])).all()


def test_points_of_another_shape_are_refused(model: Model, images: tuple[Path, Path]) -> None:
    found = model.match(*images)
    assert np.array_equal(found.points([[0.5, 0.25]]), found.points(np.array([[0.5, 0.25]])))
    for points in ([0.5, 0.5], np.zeros((3, 3))):
        with pytest.raises(ValueError, match=r"\(N, 2\)"):
            found.points(points)
