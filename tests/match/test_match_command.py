"""segswap-match: a line, and what is asked for beside it."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_models import save_model
from made_pairs import image_files, soft_texture
from PIL import Image

import segswap
from pipelines.match.config import MatchConfig, main
from pipelines.match.job import match
from segswap.models import hub
from segswap.models.hub import DEFAULT_MODEL
from segswap.models.model import Model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model; not to be changed."""
    return save_model(tmp_path_factory.mktemp("models") / "run")


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    return image_files(tmp_path)


@pytest.fixture
def views(tmp_path: Path) -> tuple[str, str]:
    """Files of two views of one picture."""
    picture = soft_texture(288, 3)
    paths = tmp_path / "left.png", tmp_path / "right.png"
    Image.fromarray(picture[:256, :256]).save(paths[0])
    Image.fromarray(picture[:240, 24:280]).save(paths[1])
    return str(paths[0]), str(paths[1])


def run_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """segswap-match in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["segswap-match", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["match.png", "match.jpg", "match.JPEG"])
def test_a_picture_of_the_match_is_drawn(
    name: str, run: Path, images: tuple[Path, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / name
    assert match(MatchConfig(*map(str, images), str(run), str(out), height=96)) == 0
    said = capsys.readouterr().out
    assert said.startswith("score ")
    assert all(f"% of {image}" in said for image in images)
    with Image.open(out) as picture:
        assert picture.format == ("PNG" if name.endswith("png") else "JPEG")
        # Both at one height: 165 + 8 + 58 px wide.
        assert picture.size == (231, 96)
        assert np.asarray(picture).std() > 5


def test_nothing_is_written_that_is_not_asked_for(
    run: Path, images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "match.png").write_text("of somebody else")
    before = files_below(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_command(monkeypatch, "a.png", "b.jpg", "--model", run) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "% of a.png, " in said
    assert " matches" in said
    assert files_below(tmp_path) == before
    assert (tmp_path / "match.png").read_text() == "of somebody else"


def test_json_holds_the_matches_and_the_homography(
    views: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "matches.json"
    words = (*views, "--model", "segswap-tiny", "--size", "256", "--points", "300", "--json", out)
    assert run_command(monkeypatch, *words) == 0
    told = json.loads(out.read_text())
    assert list(told) == [
        "format", "version", "model", "size", "source", "target", "score", "matches", "homography"
    ]  # fmt: skip
    assert told["format"] == 1
    assert told["version"] == version("segswap")
    assert (told["model"], told["size"]) == ("segswap-tiny", 256)
    found = segswap.load("segswap-tiny", size=256).match(*views)
    for role, image, size, mask in (
        ("source", views[0], (256, 256), found.source_mask),
        ("target", views[1], (256, 240), found.target_mask),
    ):
        side = told[role]
        assert (side["image"], side["width"], side["height"]) == (image, *size)
        assert side["shared"] == pytest.approx(np.mean(mask > 0.5), abs=1e-5)
    assert told["score"] == pytest.approx(found.score, abs=1e-3)
    matches = found.matches(300)
    for key in ("source", "target", "confidence"):
        kept = np.array(told["matches"][key])
        np.testing.assert_allclose(kept, getattr(matches, key), atol=1e-3)
    # A reader can go on with them, and with the matrix.
    start, end = (np.array(told["matches"][role]) for role in ("source", "target"))
    assert 200 < len(start) <= 300
    assert np.median(np.abs(start - (24, 0) - end)) < 2
    matrix, inliers = np.array(told["homography"]["matrix"]), told["homography"]["inliers"]
    assert inliers > 0.5 * len(start)
    moved = cv2.perspectiveTransform(np.array([[[120.0, 100], [200, 180]]]), matrix)[0]
    np.testing.assert_allclose(moved, [[96, 100], [176, 180]], atol=3)
    assert f"{len(start)} matches, {inliers} in one homography" in capsys.readouterr().out


def test_json_of_images_that_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colour in (("black.png", 0), ("grey.png", 128)):
        Image.new("RGB", (80, 60), (colour,) * 3).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    words = ("black.png", "grey.png", "--model", "segswap-tiny", "--json", "m.json")
    assert run_command(monkeypatch, *words, "--out", "m.png") == 0
    told = json.loads((tmp_path / "m.json").read_text())
    assert told["matches"] == {"source": [], "target": [], "confidence": []}
    assert told["homography"] is None
    assert told["source"]["shared"] == told["target"]["shared"] == 0
    assert "; 0 matches\n" in capsys.readouterr().out


def test_masks_are_probabilities_at_the_images_sizes(
    views: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "masks"
    words = (*views, "--model", "segswap-tiny", "--masks", folder)
    for _ in range(2):  # and again in their place
        assert run_command(monkeypatch, *words) == 0
    assert {path.name for path in folder.iterdir()} == {"source.png", "target.png"}
    found = segswap.load("segswap-tiny").match(*views)
    for name, mask in (("source.png", found.source_mask), ("target.png", found.target_mask)):
        with Image.open(folder / name) as picture:
            assert picture.mode == "L"
            np.testing.assert_allclose(np.asarray(picture) / 255, mask, atol=0.51 / 255)
        assert mask.max() > 0.5


def test_without_a_model_the_shipped_one_matches(
    images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_SHIPPED", tmp_path / "models")
    with pytest.raises(ValueError, match="no model 'segswap-base'"):
        match(MatchConfig(*map(str, images)))
    save_model(tmp_path / "models" / DEFAULT_MODEL)
    assert match(MatchConfig(*map(str, images))) == 0
    assert segswap.load().folder == tmp_path / "models" / DEFAULT_MODEL


def test_a_damaged_picture_is_not_matched(
    images: tuple[Path, Path], run: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its second half is zeros, or it is cut and ended, and decoders make grey of that."""
    data = images[1].read_bytes()
    for spoilt in (data[: len(data) // 2] + bytes(len(data) // 2), data[:-500] + b"\xff\xd9"):
        images[1].write_bytes(spoilt)
        assert run_command(monkeypatch, *images, "--model", run) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: {images[1]}: cannot be decoded (")
        assert said.count("\n") == 1


def test_a_scan_is_matched_where_the_flag_allows_it(
    images: tuple[Path, Path], run: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("segswap.files.limits.DEFAULT_MEGAPIXELS", 1)
    Image.new("RGB", (1000, 1100)).save(images[0])
    assert run_command(monkeypatch, *images, "--model", run) == 1
    assert "over 1 megapixels (1000 x 1100); --max-megapixels 2, or" in capsys.readouterr().err
    assert run_command(monkeypatch, *images, "--model", run, "--max-megapixels", 2) == 0
    assert run_command(monkeypatch, *images, "--model", run) == 1
    assert run_command(monkeypatch, *images, "--model", run, "--max-megapixels", 0) == 2


def test_settings_that_cannot_be_are_refused(images: tuple[Path, Path], run: Path) -> None:
    for name in ("match.gif", "match", "match.png.txt"):
        with pytest.raises(ValueError, match=r"\.png or \.jpg"):
            MatchConfig(*map(str, images), str(run), name)
    with pytest.raises(ValueError, match="--height is 8"):
        MatchConfig(*map(str, images), height=8)
    with pytest.raises(ValueError, match="--points is 0; expected at least 1"):
        MatchConfig(*map(str, images), points=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "bad.png", "--model", "none"], "bad.png: not an image"),
        (["a.png", "folder", "--model", "none"], "folder: is a folder, not an image"),
        (["none.png", "a.png", "--model", "none"], "none.png: missing"),
        (["a.png", "a.png", "--model", "a.png"], "a.png is a file; expected the folder of a model"),
        (["a.png", "a.png", "--model", "folder"],
         "folder holds no model (model.json and model.safetensors missing); expected the folder "
         "of a run of segswap-train"),
        (["a.png", "b.jpg", "--model", "none", "--out", "folder.png"],
         "--out folder.png is a folder; expected the name of a file"),
        (["a.png", "b.jpg", "--model", "none", "--out", "none/m.png"],
         "--out none/m.png is in no folder: none is not there; make it"),
        (["a.png", "b.jpg", "--model", "none", "--json", "folder"],
         "--json folder is a folder; expected the name of a file"),
        (["a.png", "b.jpg", "--model", "none", "--masks", "a.png"],
         "--masks a.png: a.png is a file; expected a folder"),
        (["a.png", "b.jpg", "--model", "none", "--out", "folder/../a.png"],
         "--out would write folder/../a.png over the image; choose another name"),
        (["a.png", "b.jpg", "--model", "none", "--json", "b.jpg"],
         "--json would write b.jpg over the image; choose another name"),
        (["a.png", "target.png", "--model", "none", "--masks", "."],
         "--masks would write target.png over the image; choose another name"),
        (["a.png", "b.jpg", "--model", "run", "--size", "65"],
         "size 65 is no multiple of 8, the matcher's stride, up to 8192; expected 8, 16, 24, ... "
         "pixels"),
        (["a.png", "a.png", "--model", "run", "--device", "cuda:99"],
         "--device cuda:99 is not there"),
    ],
)  # fmt: skip
def test_command_says_what_is_wrong_and_writes_nothing(
    arguments: list[str], message: str, run: Path, images: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # What is wrong with a path is said before the model, which is not there, is looked for.
    (tmp_path / "run").symlink_to(run)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "target.png").write_bytes(images[0].read_bytes())
    before = {path: path.read_bytes() for path in files_below(tmp_path)}
    monkeypatch.chdir(tmp_path)
    assert run_command(monkeypatch, *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in files_below(tmp_path)} == before


def test_out_of_memory_says_what_helps(
    run: Path, images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nGPU 0 has a capacity of 8 GiB")

    monkeypatch.setattr(Model, "_matches", full)
    with pytest.raises(RuntimeError, match=r"^out of memory: use --device cpu.*memory\.\)$"):
        match(MatchConfig(*map(str, images), str(run), str(tmp_path / "match.png")))


def test_help_and_a_wrong_path_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pipelines.match.config import main; sys.argv[1:] = {!r}\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    for words, status in ((["--help"], 0), (["none.png", "none.png"], 1)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(words)], capture_output=True, text=True,
            timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == f"{status} False", done.stderr


def test_installed_command_matches(
    run: Path, images: tuple[Path, Path], script: Callable[[str], str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [script("segswap-match"), *map(str, images), "--model", str(run), "--out", "m.png"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("score ")
    assert (tmp_path / "m.png").is_file()
