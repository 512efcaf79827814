"""The index of a collection: what it holds, how it grows, what it refuses."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import textured
from hypothesis import given
from hypothesis import strategies as st
from made_models import save_model

from pipelines.search.index import build_index, collect
from segswap.files.images import pixel_hash, read_image
from segswap.matchers.encoding import Encoding
from segswap.models.model import load
from segswap.models.score import pooled
from segswap.search.index import Index
from segswap.search.index_files import entry_type

Build = Callable[..., Index]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of different sizes, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(6):
        name = f"{number}.png" if number < 5 else "more/5.png"
        cv2.imwrite(str(folder / name), textured(60 + 10 * number, 90, number))
    return folder


@pytest.fixture
def build(photos: Path, model: str, tmp_path: Path) -> Build:
    """Index what is below a folder, in this process."""

    def run(folder: Path = photos, out: Path = tmp_path / "index", which: str = model) -> Index:
        return build_index(collect([str(folder)]).images, which, out)

    return run


def assert_kept(stored: Encoding, computed: Encoding) -> None:
    """Encodings of an index are those of an image, to the last bit of half precision, in which
    they are kept; an index is made on the GPU, where there is one.
    """
    torch.testing.assert_close(dict(stored), dict(computed.float()), rtol=2e-3, atol=1e-3)


def same(first: Encoding, second: Encoding) -> bool:
    """Whether two indexes keep the same bytes of an image."""
    return all(torch.equal(first[name], second[name]) for name in first)


def test_features_descriptors_and_sizes_are_those_of_the_images(build: Build, model: str) -> None:
    index = build()
    assert len(index) == 6
    assert list(index.images) == sorted(index.images)
    matcher = load(model)
    for number, path in enumerate(index.images):
        image = read_image(path)
        features = matcher.encode([image])
        assert_kept(index.encoding([number]), features)
        compared = matcher.matcher.compared(features)
        torch.testing.assert_close(index.compared([number]), compared, rtol=2e-3, atol=1e-3)
        assert index.sizes[number].tolist() == [image.shape[1], image.shape[0]]
        expected = pooled(matcher.matcher, features)[0].numpy()
        assert index.descriptors[number] == pytest.approx(expected, abs=1e-4)
        assert index.with_pixels(pixel_hash(image)).tolist() == [number]
    assert index.skipped == []
    assert index.encoding([4, 1]).images == 2
    assert index.images[1:3] == list(index.images)[1:3]


def test_an_index_grows_by_new_images_alone(
    build: Build, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build()
    files = {p: p.stat().st_mtime_ns for p in before.folder.glob("shard-*")}
    assert build().images[:] == before.images[:]  # nothing to do
    cv2.imwrite(str(photos / "00.png"), textured(64, 64, 77))
    after = build()
    assert len(after) == 7
    assert Path(after.images[1]).name == "00.png"
    assert {p: p.stat().st_mtime_ns for p in files} == files
    old = [n for n in range(7) if n != 1]
    assert same(after.encoding(old), before.encoding(range(6)))
    assert len(list(after.folder.glob("images-*.npy"))) == 1
    assert len(before) == 6  # what is open stays as it was


def test_changed_images_are_read_again_and_gone_ones_left_out(build: Build, photos: Path) -> None:
    before = build()
    cv2.imwrite(str(photos / "2.png"), textured(50, 120, 99))
    (photos / "4.png").unlink()
    after = build()
    assert [Path(p).name for p in after.images] == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert after.sizes[2].tolist() == [120, 50]
    assert not same(after.encoding([2]), before.encoding([2]))
    assert same(after.encoding([3]), before.encoding([3]))


def test_unusable_images_are_listed_and_the_others_indexed(build: Build, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (photos / "empty.png").touch()
    index = build()
    assert len(index) == 6
    names = {Path(path).name: reason for path, reason in index.skipped}
    assert set(names) == {"broken.jpg", "empty.png"}
    assert all(names.values())
    cv2.imwrite(str(photos / "empty.png"), textured(64, 64, 3))  # mended
    index = build()
    assert len(index) == 7
    assert [Path(p).name for p, _ in index.skipped] == ["broken.jpg"]


def test_a_collection_without_a_usable_image_is_refused(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.png").touch()
    with pytest.raises(ValueError, match=r"no image could be read .*a\.png"):
        build(folder)
    (folder / "a.png").unlink()
    with pytest.raises(ValueError, match="holds no image"):
        build(folder)


def test_another_models_index_is_refused_with_both_names(build: Build, tmp_path: Path) -> None:
    index = build()
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"index of another model .*small.*other"):
        build(which=str(other))
    with pytest.raises(ValueError, match=r"made by the model .*small.* not by .*other"):
        index.check_model(load(other))
    copy = shutil.copytree(tmp_path / "other", tmp_path / "copy")
    second = build(out=tmp_path / "second", which=str(other))
    second.check_model(load(copy))  # the same files under another name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "is no index"),
        (lambda f: (f / "index.json").write_text("{"), "is damaged"),
        (lambda f: change(f, format=99), "is of format 99"),
        (lambda f: change(f, version=0), "is not finished"),
        (lambda f: (f / "images-1.npy").write_bytes(b"nothing"), "is damaged"),
        (lambda f: (f / "descriptors-1.npy").unlink(), "is damaged"),
    ],
)
def test_what_is_no_whole_index_is_refused(
    damage: Callable[[Path], object], message: str, build: Build
) -> None:
    folder = build().folder
    damage(folder)
    with pytest.raises(ValueError, match=message):
        Index.open(folder)


def change(folder: Path, **settings: object) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_lost_shard_is_named_when_it_is_needed(build: Build) -> None:
    index = build()
    (index.folder / "shard-00000.encoded.energy.npy").unlink()
    with pytest.raises(ValueError, match=r"shard-00000\.encoded\.energy\.npy cannot be read"):
        Index.open(index.folder).encoding([0, 1, 2, 3, 4, 5])


def test_a_folder_with_other_things_is_left_alone(build: Build, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is no index and not empty"):
        build(out=out)
    assert os.listdir(out) == ["thesis.txt"]


def test_mirrored_features_are_those_of_the_flipped_image(
    photos: Path, model: str, tmp_path: Path
) -> None:
    images = collect([str(photos)]).images
    index = build_index(images, model, tmp_path / "flipped", mirrored=True)
    flipped = np.ascontiguousarray(read_image(images[2])[:, ::-1])
    assert_kept(index.encoding([2]), load(model).encode([flipped]))
    with pytest.raises(ValueError, match="mirrored was True, is False"):
        build_index(images, model, tmp_path / "flipped")


@given(
    numbers=st.integers(1, 40), dimensions=st.integers(2, 9), count=st.integers(1, 50),
    chunk=st.integers(1, 17), seed=st.integers(0, 100),
)  # fmt: skip
def test_nearest_is_what_comparing_all_gives(
    numbers: int, dimensions: int, count: int, chunk: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(numbers, dimensions)).astype(np.float32)
    index = Index(Path("nowhere"), {"skipped": []}, np.zeros(numbers, entry_type(1)), descriptors)
    query = rng.normal(size=dimensions).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segswap.search.index._CHUNK", chunk)
        found, values = index.nearest(query, count)
    products = descriptors @ query
    assert len(found) == min(count, numbers)
    assert values == pytest.approx(np.sort(products)[::-1][:count], abs=1e-4)
    assert products[found] == pytest.approx(values, abs=1e-4)
