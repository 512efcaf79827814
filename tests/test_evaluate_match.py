"""A trained model in users' hands: segswap-eval, segswap-match, segswap.load and Model.match."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import textured
from made_pairs import pasted_pair, soft_texture, write_dataset
from PIL import Image

import segswap
from pipelines import evaluate as evaluation
from pipelines.curves import draw_curves
from pipelines.evaluate import EvalConfig, evaluate, score_methods, table
from pipelines.match import MatchConfig, match
from pipelines.train import TrainConfig, train
from segswap import geometry
from segswap.draw import draw_match, spread_points
from segswap.images import ImageError
from segswap.model import Model
from segswap.prediction import Prediction

COLUMNS = ["mask IoU", "PCK@1%", "PCK@3%", "PCK@5%", "false area", "stereo PCK@1%", "@3%", "@5%"]


def train_model(dataset: str, out: Path, seed: int = 0) -> Path:
    config = TrainConfig(
        (dataset,), str(out), steps=2, batch=2, size=64, match_size=64, device="cpu", workers=0,
        seed=seed,
    )  # fmt: skip
    assert train(config) == 0
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three train pairs and two val pairs without styled versions."""
    folder = tmp_path_factory.mktemp("made") / "pairs"
    return write_dataset(folder, [pasted_pair(n) for n in range(3)], [pasted_pair(9)] * 1)


@pytest.fixture(scope="module")
def run(made: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run; not to be changed."""
    return train_model(made, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return segswap.load(run)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run to damage."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    """Files of two images of different sizes and shapes."""
    paths = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(textured(70, 120, 0)).save(paths[0])
    Image.fromarray(textured(150, 90, 1)).save(paths[1])
    return paths


# --- evaluation ------------------------------------------------------------------------------


def test_table_and_json_hold_the_same_scores(
    run: Path, photos_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.json"
    config = EvalConfig(str(photos_dataset), model=str(run), baseline="sift", json=str(path))
    assert evaluate(config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["method", *COLUMNS]
    rows = {
        name.strip(): [float(value) for value in values]
        for name, *values in (line.strip("|").split("|") for line in lines[2:])
    }
    content = json.loads(path.read_text())
    assert list(rows) == list(content["scores"]) == ["correlation", "sift+ransac"]
    assert (content["split"], content["styled"], content["pairs"]) == ("val", False, 4)
    for name, scores in content["scores"].items():
        stereo = scores.pop("stereo")
        assert rows[name] == pytest.approx([*scores.values(), *stereo.values()], abs=5e-4)
    for scores in rows.values():
        assert all(0 <= value <= 1 for value in scores)
    # SIFT on a real stereo pair and on real photographs finds something.
    assert rows["sift+ransac"][3] > 0.2


def test_a_score_that_is_not_there_is_null_in_json(run: Path, made: str, tmp_path: Path) -> None:
    # One pair alone has no other pair to share nothing with.
    path = tmp_path / "scores.json"
    rows = score_methods(EvalConfig(made, model=str(run)))
    assert "nan" in table(rows)
    evaluate(EvalConfig(made, model=str(run), json=str(path)))
    scores = json.loads(path.read_text())["scores"]["correlation"]
    assert scores["false_area"] is None
    assert "NaN" not in path.read_text()


def test_every_pair_is_also_matched_with_another_ones_target(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bytes, bytes]] = []

    def noted(source: np.ndarray, target: np.ndarray) -> Prediction:
        asked.append((source.tobytes(), target.tobytes()))
        full, grid = np.ones((4, 4), np.float32), np.zeros((4, 4, 2), np.float32)
        return Prediction(grid, grid, full, full)

    monkeypatch.setattr(evaluation, "sift", noted)
    rows = score_methods(EvalConfig(made, split="train", baseline="sift"))
    assert rows["sift+ransac"][0].false_area == 1
    pairs = asked[:-1]  # the last one is the stereo pair
    assert len(pairs) == 6
    targets = {source: {t for s, t in pairs if s == source} for source, _ in pairs}
    assert len(targets) == 3
    assert all(len(found) == 2 for found in targets.values())


def test_limit_scores_the_first_pairs(made: str, run: Path, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    score_methods(EvalConfig(made, split="train", model=str(run), limit=2, predictions=str(keep)))
    names = {path.name for path in (keep / "correlation").iterdir()}
    assert names == {
        "000000000.npz", "000000000.negative.npz", "000000001.npz", "000000001.negative.npz",
        "predictions.json",
    }  # fmt: skip


def test_styled_images_are_matched_where_there_are_some(
    photos_dataset: Path, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(source: np.ndarray, target: np.ndarray) -> Prediction:
        seen.append(source)
        mask, grid = np.ones((4, 4), np.float32), np.zeros((4, 4, 2), np.float32)
        return Prediction(grid, grid, mask, mask)

    monkeypatch.setattr(evaluation, "sift", noted)
    for styled in (False, True):
        score_methods(EvalConfig(str(photos_dataset), baseline="sift", styled=styled, limit=1))
    assert not np.array_equal(seen[0], seen[2])
    with pytest.raises(ValueError, match=r"no styled images.*--styled"):
        score_methods(EvalConfig(made, baseline="sift", styled=True))


def test_predictions_are_made_once(
    made: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvalConfig(made, split="train", model=str(run), predictions=str(tmp_path / "kept"))
    first = score_methods(config)
    asked = 0
    original = Model.predict

    def counted(self: Model, source: np.ndarray, target: np.ndarray) -> Prediction:
        nonlocal asked
        asked += 1
        return original(self, source, target)

    monkeypatch.setattr(Model, "predict", counted)
    assert score_methods(config) == first
    assert asked == 1  # the stereo pair's, which is not kept
    # An unfinished export is done again.
    (tmp_path / "kept" / "correlation" / "predictions.json").unlink()
    assert score_methods(config) == first
    assert asked == 1 + 7


def test_predictions_of_another_model_or_split_are_refused(
    made: str, run: Path, copy: Path, tmp_path: Path
) -> None:
    keep = str(tmp_path / "kept")
    score_methods(EvalConfig(made, model=str(run), predictions=keep))
    # The same model elsewhere is the same.
    score_methods(EvalConfig(made, model=str(copy), predictions=keep))
    other = train_model(made, tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="another method"):
        score_methods(EvalConfig(made, model=str(other), predictions=keep))
    with pytest.raises(ValueError, match="another split"):
        score_methods(EvalConfig(made, split="train", model=str(run), predictions=keep))
    # At another size the same weights find other things.
    settings = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(settings | {"size": 96}))
    with pytest.raises(ValueError, match="another method"):
        score_methods(EvalConfig(made, model=str(copy), predictions=keep))


def test_unusable_evaluations_are_refused(made: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        EvalConfig(made)
    with pytest.raises(ValueError, match="--limit is 0"):
        EvalConfig(made, baseline="sift", limit=0)
    with pytest.raises(ValueError, match="no finished dataset"):
        evaluate(EvalConfig(str(tmp_path), baseline="sift"))
    train_only = write_dataset(tmp_path / "train", [pasted_pair(0)])
    with pytest.raises(ValueError, match="val"):
        evaluate(EvalConfig(train_only, baseline="sift"))
    with pytest.raises(ValueError, match="holds no model"):
        evaluate(EvalConfig(made, model=str(tmp_path)))


# --- loading ---------------------------------------------------------------------------------


def test_importing_segswap_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, segswap; found = {'torch', 'ray', 'cv2'} & set(sys.modules); "
        "assert not found, found; assert callable(segswap.load); assert 'torch' in sys.modules; "
        "assert 'ray' not in sys.modules; from segswap import Model; assert Model.match"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_segswap_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="lode"):
        segswap.lode  # noqa: B018


def test_a_folder_without_a_model_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.json and model\.safetensors missing"):
        segswap.load(tmp_path / "nothing")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"\(model\.safetensors missing\)"):
        segswap.load(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\x80\x04K\x01."),
        ("model.safetensors", None),  # cut short
        ("model.json", b"{"),
        ("model.json", b"[]"),
        ("model.json", b"{}"),
        ("model.json", b'{"matcher": "magic", "options": {}, "size": 64}'),
        ("model.json", b'{"matcher": "correlation", "options": {"depth": 3}, "size": 64}'),
        ("model.json", b'{"matcher": "correlation", "options": {"width": 7}, "size": 64}'),
        ("model.json", b'{"matcher": "correlation", "options": {}}'),
        ("model.json", b'{"matcher": "correlation", "options": {}, "size": 100}'),
        ("model.json", b'{"matcher": "correlation", "options": {}, "size": "64"}'),
    ],
)
def test_a_damaged_model_is_refused(name: str, content: bytes | None, copy: Path) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="holds a model that cannot be loaded"):
        segswap.load(copy)


def test_saved_model_gives_the_same_answers(model: Model, tmp_path: Path) -> None:
    source, target = textured(64, 64, 0), textured(64, 64, 1)
    model.save(tmp_path / "again")
    again = segswap.load(tmp_path / "again")
    for a, b in zip(
        model.predict(source, target).__dict__.values(),
        again.predict(source, target).__dict__.values(), strict=True,
    ):  # fmt: skip
        assert np.array_equal(a, b)
    assert not again.matcher.training


# --- matching --------------------------------------------------------------------------------


def check_match(found: Any, source: tuple[int, int], target: tuple[int, int]) -> None:
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
    for wrong, message in (
        (good.astype(np.float32), "source image is an array of float32"),
        (good[..., :2], r"\(64, 64, 2\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (None, "source image is of type NoneType"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), "source image is of type Tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            model.match(wrong, good)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["match.png", "match.jpg", "match.JPEG"])
def test_a_picture_of_the_match_is_drawn(
    name: str, run: Path, images: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / name
    assert match(MatchConfig(*map(str, images), str(run), str(out), height=96)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: score ")
    assert all(f"% of {image}" in said for image in images)
    with Image.open(out) as picture:
        assert picture.format == ("PNG" if name.endswith("png") else "JPEG")
        # Both at one height: 165 + 8 + 58 px wide.
        assert picture.size == (231, 96)
        assert np.asarray(picture).std() > 5


def test_match_command_refuses_other_endings_and_foreign_files(
    run: Path, images: tuple[Path, Path], script: Callable[[str], str], tmp_path: Path
) -> None:
    for name in ("match.gif", "match", "match.png.txt"):
        with pytest.raises(ValueError, match=r"\.png or \.jpg"):
            MatchConfig(*map(str, images), str(run), name)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    done = subprocess.run(
        [script("segswap-match"), str(images[0]), str(bad), "--model", str(run),
         "--out", str(tmp_path / "match.png")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"error: {bad}: not an image\n"
    assert not (tmp_path / "match.png").exists()


def test_eval_command_ends_with_the_table(
    run: Path, made: str, script: Callable[[str], str]
) -> None:
    done = subprocess.run(
        [script("segswap-eval"), made, "--model", str(run)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("| method | mask IoU")
    assert len(done.stdout.splitlines()) == 3


# --- pictures --------------------------------------------------------------------------------


def test_what_is_not_shared_is_darkened_and_points_are_joined() -> None:
    image = np.full((60, 60, 3), 200, np.uint8)
    mask = np.zeros((12, 12), np.float32)
    mask[:, 6:] = 1
    grid = np.full((12, 12, 2), 0.75, np.float32)
    picture = draw_match(image, image, Prediction(grid, grid, mask, mask), height=60, points=3)
    assert picture.shape == (60, 128, 3)
    assert picture[30, 5].tolist() == [66, 66, 66]
    assert (picture[2, 55] == 200).all()
    # The points meet at three quarters of the right image.
    met = picture[40:50, 68 + 40 : 68 + 50].astype(int)
    assert (np.ptp(met, axis=2) > 50).any()
    # Without a shared region nothing is joined, and without an answer neither.
    for prediction in (
        Prediction(grid, grid, 0 * mask, 0 * mask),
        Prediction(grid * np.nan, grid * np.nan, mask, mask),
    ):
        plain = draw_match(image, image, prediction, height=60)
        assert (np.ptp(plain[:, 60:68].astype(int), axis=2) == 0).all()


def test_points_are_spread_over_the_mask() -> None:
    mask = np.zeros((50, 80), bool)
    mask[10:40, 20:70] = True
    points = spread_points(mask, 9)
    assert points.shape == (9, 2)
    assert mask[(points[:, 1] * 50).astype(int), (points[:, 0] * 80).astype(int)].all()
    distances = np.linalg.norm((points[:, None] - points) * (80, 50), axis=2)
    assert distances[~np.eye(9, dtype=bool)].min() > 8
    assert len(spread_points(mask, 10**6)) == mask.sum()
    assert spread_points(mask & False, 5).shape == (0, 2)


def test_curves_of_an_empty_history_are_drawn(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height
