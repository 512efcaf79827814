"""segswap-train --matcher rtn: known maps, then pictures of kinds, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import timm
import torch
from conftest import textured
from made_kinds import write_folder
from training_runs import history, out_of, small_config, small_dataset

import segswap
from pipelines.benchmark.config import main as benchmark
from pipelines.command import cli
from pipelines.evaluate.config import main as evaluate
from pipelines.training.config import TrainConfig, command_line, main
from pipelines.training.job import train


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """A small backbone of random weights, and a small network."""
    torch.manual_seed(0)
    path = tmp_path / "resnet10t.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), path)
    return {"backbone": "resnet10t", "backbone_weights": str(path), "width": 4}


@pytest.fixture
def first(options: dict[str, Any], tmp_path: Path) -> TrainConfig:
    """The first stage, on generated pairs."""
    pairs = small_dataset(tmp_path / "pairs")
    return small_config(pairs, tmp_path, matcher="rtn", options=options, steps=2)


def plain_folder(root: Path, **kinds: int) -> Path:
    """So many pictures of each kind, and nothing else known of them."""
    for number, (kind, count) in enumerate(kinds.items()):
        (root / kind).mkdir(parents=True)
        for picture in range(count):
            image = textured(80, 96, 10 * number + picture)
            cv2.imwrite(str(root / kind / f"{picture}.png"), image)
    return root


def run(monkeypatch: pytest.MonkeyPatch, *flags: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["segswap-train", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_known_maps_come_first_then_kinds(first: TrainConfig, tmp_path: Path) -> None:
    assert train(first) == 0
    rows = history(out_of(first))
    assert all(float(row["field"]) > 0 for row in rows)
    assert "weak" not in rows[0]  # nobody knows what kinds generated pairs show
    assert all(row[name] == "" for row in rows for name in ("mask", "transfer", "corr"))
    model = segswap.load(out_of(first)).matcher
    # Fitted on the val pairs: no two numbers anyone would have chosen.
    assert (float(model.calibration.scale), float(model.calibration.offset)) != (1, 0)

    source = plain_folder(tmp_path / "kinds", cat=3, dog=3)
    second = replace(
        first, data=(), category_images=(str(source),), init=first.out, out=str(tmp_path / "two"),
        matcher=None, options={}, steps=4, batch=3,
    )  # fmt: skip
    assert train(second) == 0
    rows = history(out_of(second))
    assert all(0 < float(row["weak"]) < 20 for row in rows)
    assert any(float(row["field"]) > 0 for row in rows)  # of a picture with itself
    saved = json.loads((out_of(second) / "model.json").read_text())["options"]
    assert saved["width"] == 4
    assert "backbone_weights" not in saved
    match = segswap.load(out_of(second)).match(textured(70, 90, 1), textured(64, 64, 2))
    assert match.source_mask.shape == (70, 90)


def test_kinds_with_masks_are_scored_and_calibrated_on(
    options: dict[str, Any], tmp_path: Path
) -> None:
    kinds = {"cat": list(range(20, 26)), "dog": list(range(30, 36))}
    source = write_folder(tmp_path / "kinds", kinds)
    held = [f"{kind}/{n}.png" for kind, numbers in kinds.items() for n in numbers[:2]]
    (tmp_path / "kinds" / "heldout.txt").write_text("\n".join(held))
    config = small_config(
        "", tmp_path, data=(), category_images=(source,), matcher="rtn", options=options, steps=2,
    )  # fmt: skip
    assert train(config) == 0
    (row,) = history(out_of(config))
    assert float(row["val_kind_iou"]) >= 0
    assert row["keypoints"] == ""  # learned from only where it is asked for
    calibration = segswap.load(out_of(config)).matcher.calibration
    assert (float(calibration.scale), float(calibration.offset)) != (1, 0)


def test_the_three_losses_and_warped_pictures_are_learned_from(
    first: TrainConfig, tmp_path: Path
) -> None:
    source = write_folder(tmp_path / "masked", {"cat": [20, 21, 22, 23]})
    config = replace(
        first, masked_images=(source,),
        losses={"mask": 1.0, "transfer": 1.0, "corr": 1.0},
    )  # fmt: skip
    assert train(config) == 0
    (row,) = history(out_of(config))
    assert all(float(row[name]) > 0 for name in ("mask", "transfer", "corr", "field"))


# --- what is refused before anything is trained ----------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is nothing to train on: give PAIRS, --category-images"),
        (["--category-images", "one"], "holds 1 pictures of 1 kinds, and no two of one kind"),
        (["--category-images", "loose"], "expected a folder for each kind with two pictures"),
        (["pairs", "--loss-weak", "2"], "--loss-weak needs label, which these data do not have"),
        (["--category-images", "kinds", "--loss-mask", "1"], "--loss-mask needs mask, which"),
        (["pairs", "--backbone", "vit_tiny_patch16_224", "--backbone-weights", "timm"],
         "vit_tiny_patch16_224 has no features of stride 32; it has 16"),
        (["pairs", "--preset", "published"], "that ships is tf_efficientnet_lite2, not vgg19"),
        (["pairs", "--init", "segswap-tiny"], "--matcher is rtn, but the model of segswap-tiny is"),
        (["pairs", "--preset", "published", "--published-weights", "none.mat"],
         "weights file none.mat does not exist"),
        (["pairs", "--published-weights", "none.mat"], "are of VGG-19; give --preset published"),
        (["pairs", "--coarse-estimates", "0", "--fine-estimates", "0"], "one estimate at least"),
        (["pairs", "--size", "90"], "--size is 90; expected a multiple of the matcher's stride 16"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_a_sentence(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small_dataset(tmp_path / "pairs")
    plain_folder(tmp_path / "one", cat=1)
    plain_folder(tmp_path / "kinds", cat=3)
    (tmp_path / "loose").mkdir()
    cv2.imwrite(str(tmp_path / "loose" / "a.png"), textured(80, 96, 1))
    monkeypatch.chdir(tmp_path)
    given = ["--matcher", "rtn", "--out", "run", "--size", 64, "--steps", 1, "--device", "cpu",
             "--workers", 0, *flags]  # fmt: skip
    assert run(monkeypatch, *given) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run" / "last.pt").exists()


def test_one_kind_is_enough(options: dict[str, Any], tmp_path: Path) -> None:
    source = plain_folder(tmp_path / "kinds", cat=3)
    config = small_config(
        "", tmp_path, data=(), category_images=(str(source),), steps=1, every=1, matcher="rtn",
        options=options,
    )  # fmt: skip
    assert train(config) == 0


def test_help_shows_its_options_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(command_line, ["--matcher", "rtn", "--help"])
    said = capsys.readouterr().out
    for part in (
        "--preset {None,shipped,published}", "--width", "--coarse-estimates", "--fine-estimates",
        "--temperature", "--published-weights", "--loss-field", "--loss-weak", "--loss-corr",
    ):  # fmt: skip
        assert part in said


# --- on real pictures ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_animals_the_commands_work_one_after_the_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known maps, kinds, and scores of both runs beside nearest neighbours."""
    runs = [str(tmp_path / "first"), str(tmp_path / "second")]
    few = ["--steps", 4, "--batch", 2, "--every", 4, "--workers", 0, "--device", "cpu"]
    pairs = small_dataset(tmp_path / "pairs")
    assert run(monkeypatch, pairs, "--matcher", "rtn", "--out", runs[0], *few) in (None, 0)
    assert run(
        monkeypatch, "--category-images", data / "animals", "--matcher", "rtn", "--init", runs[0],
        "--out", runs[1], *few,
    ) in (None, 0)  # fmt: skip
    assert (Path(runs[1]) / "model.safetensors").stat().st_size < 12e6
    for command, words in (
        (benchmark, ["segswap-benchmark", "animals", data / "animals", "--limit", 4]),
        (evaluate, ["segswap-eval", "--tss", data / "benchmarks" / "tss"]),
    ):
        given = [*words, "--model", *runs, "--baseline", "features", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", list(map(str, given)))
        with pytest.raises(SystemExit) as ended:
            command()
        assert ended.value.code in (None, 0)
        said = capsys.readouterr().out
        assert "first (rtn)" in said
        assert "second (rtn)" in said
