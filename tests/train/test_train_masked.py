"""segswap-train on pictures with foreground masks: alone, and mixed; SFNet on them and on pairs."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_kinds import write_coco, write_folder
from training_runs import assert_same_run, history, out_of, small_config, small_dataset, stop_after

import segswap
from pipelines.command import cli
from pipelines.evaluate.config import main as evaluate
from pipelines.training.config import TrainConfig, command_line, main
from pipelines.training.job import train

TERMS = ("mask_consistency", "flow_consistency", "smoothness")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Six pictures with masks in two folders, two of them held out."""
    source = write_folder(tmp_path / "kinds", {"cat": [20, 21, 22, 23], "dog": [30, 31]})
    (tmp_path / "kinds" / "heldout.txt").write_text("cat/20.png\ndog/31.png\n")
    return source


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    """The file of a small backbone, of random weights."""
    import timm
    import torch

    torch.manual_seed(0)
    path = tmp_path / "resnet10t.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), path)
    return str(path)


@pytest.fixture
def alone(folder: str, backbone: str, tmp_path: Path) -> TrainConfig:
    """SFNet on a small backbone of random weights, on these pictures."""
    options = {"backbone": "resnet10t", "backbone_weights": backbone}
    return replace(
        small_config("", tmp_path), data=(), masked_images=(folder,), matcher="sfnet",
        options=options,
    )  # fmt: skip


def test_sfnet_learns_from_masks_and_is_scored_on_warps_of_what_is_held_out(
    alone: TrainConfig, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(alone) == 0
    rows = history(out_of(alone))
    for name in TERMS:
        assert all(float(row[name]) > 0 for row in rows)
    for name in ("mask", "transfer", "corr"):  # of no weight unless they are asked for
        assert all(row[name] == "" for row in rows)
    assert all(0 <= float(row["val_pck_5"]) <= 1 for row in rows)
    run = json.loads((out_of(alone) / "run.json").read_text())
    assert list(run["datasets"]) == [f"{folder}, masks"]
    assert run["config"]["loss_flow_consistency"] == 16
    model = segswap.load(out_of(alone))
    match = model.match(*(str(Path(folder) / "images" / "cat" / f"{n}.png") for n in (20, 21)))
    assert match.source_mask.shape == (80, 120)
    cut = replace(alone, out=f"{alone.out}-cut")
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        assert train(cut) == 130
    assert train(replace(cut, resume=True)) == 0
    assert_same_run(out_of(alone), out_of(cut))


def test_other_matchers_learn_positions_and_masks_from_them(
    folder: str, tmp_path: Path
) -> None:  # fmt: skip
    config = replace(
        small_config("", tmp_path), data=(), masked_images=(folder,), steps=2, negatives=1
    )
    assert train(config) == 0
    (row,) = history(out_of(config))
    for name in ("mask", "transfer", "corr", "correlation"):
        assert float(row[name]) > 0


def test_sfnet_learns_from_pairs_with_the_losses_of_this_project(
    alone: TrainConfig, tmp_path: Path
) -> None:
    config = replace(
        alone, data=(small_dataset(tmp_path / "pairs"),), masked_images=(), steps=2,
        losses={"mask": 1.0, "transfer": 1.0, "corr": 1.0, "flow_consistency": 0.0},
    )  # fmt: skip
    assert train(config) == 0
    (row,) = history(out_of(config))
    for name in ("mask", "transfer", "corr", "mask_consistency", "smoothness"):
        assert float(row[name]) > 0
    assert row["flow_consistency"] == ""


def test_all_sorts_of_data_train_together(alone: TrainConfig, folder: str, tmp_path: Path) -> None:
    """By default generated pairs are half; what one source holds out is trained on in none."""
    config = replace(
        alone, data=(small_dataset(tmp_path / "pairs"),), batch=4, steps=2, workers=1,
        category_images=(folder, write_coco(tmp_path / "coco")), mixture=(1, 1, 1, 1),
        matcher="correlation", options={},
    )  # fmt: skip
    assert train(config) == 0
    (row,) = history(out_of(config))
    for name in ("mask", "corr", "keypoints", "val_mask_iou"):
        assert row[name] != ""
    run = json.loads((out_of(config) / "run.json").read_text())
    assert list(run["datasets"]) == [
        *config.data, *config.category_images, *(f"{s}, masks" for s in config.masked_images)
    ]  # fmt: skip
    held_out = {p.key for p in config.foregrounds[0].held_out}
    assert len(held_out) == 2
    for pictures in (*config.pictures, *config.foregrounds):
        assert not held_out & {p.key for p in pictures.pictures}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is nothing to train on: give PAIRS, --category-images, --masked-images, or"),
        (["--masked-images", "a", "a"], "--masked-images has a twice"),
        (["--masked-images", "a", "--mixture", "1", "2"], "--mixture has 2 shares for 1 datasets"),
        (["--masked-images", "nothing"], "nothing has no folders images and masks"),
        (["--masked-images", "kinds", "--init", "segswap-tiny"],
         "--matcher is sfnet, but the model of segswap-tiny is correlation"),
        (["--masked-images", "kinds", "--backbone", "vit_tiny_patch16_224"],
         "no features of stride 32; it has 16"),
        (["--masked-images", "kinds", "--preset", "published"],
         "the backbone that ships is tf_efficientnet_lite2, not resnet101"),
        (["--masked-images", "kinds", "--adaptation", "kinds/masks/cat/21.png"],
         "is not a readable weights file"),
        (["--masked-images", "kinds", "--loss-keypoints", "1"], "--loss-keypoints needs keypoi"),
        (["--category-images", "bare"], "needs mask, which these data do not have"),
        (["--masked-images", "kinds", "--size", "90"],
         "--size is 90; expected a multiple of the matcher's stride 16"),
    ],
)  # fmt: skip
def test_the_command_says_what_is_wrong(
    flags: list[str], message: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_folder(tmp_path / "bare", {"cat": [1, 2]})
    for mask in (tmp_path / "bare" / "masks" / "cat").iterdir():
        mask.unlink()
    monkeypatch.chdir(tmp_path)
    given = ["segswap-train", "--matcher", "sfnet", "--out", "run", "--device", "cpu", *flags]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run" / "history.csv").exists()


@pytest.mark.parametrize("spoiled", ["missing", "empty"])
def test_masks_are_looked_at_before_training(spoiled: str, alone: TrainConfig, folder: str) -> None:
    mask = Path(folder) / "masks" / "cat" / "22.png"
    if spoiled == "missing":
        mask.unlink()
    else:
        import cv2

        cv2.imwrite(str(mask), 0 * cv2.imread(str(mask), 0))
    with pytest.raises(ValueError, match=r"22\.png.*--skip-bad"):
        train(alone)
    assert not out_of(alone).exists()
    assert train(replace(alone, skip_bad=True, steps=1, every=1)) == 0


def test_help_tells_of_sfnet_s_options_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(command_line, ["--matcher", "sfnet", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "--preset {None,shipped,published}", "--argmax {None,kernel,soft,discrete}", "--adaptation",
        "--loss-mask-consistency", "--loss-flow-consistency", "--loss-smoothness",
        "(default: 16.0)", "--masked-images",
    ):  # fmt: skip
        assert words in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_backbone_that_ships_learns_from_photographs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user would: photographs with masks, a few steps, scores beside nearest neighbours."""
    for part in ("images", "masks"):
        (tmp_path / "photos" / part).mkdir(parents=True)
    for path in sorted((data / "saliency" / "train" / "images").iterdir())[:12]:
        (tmp_path / "photos" / "images" / path.name).symlink_to(path)
        mask = (data / "saliency" / "train" / "masks" / path.name).with_suffix(".png")
        (tmp_path / "photos" / "masks" / mask.name).symlink_to(mask)
    monkeypatch.chdir(tmp_path)
    words = ["segswap-train", "--masked-images", "photos", "--matcher", "sfnet", "--out", "run",
             "--steps", "4", "--batch", "2", "--workers", "0", "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    assert _status(main) == 0
    assert (tmp_path / "run" / "model.safetensors").stat().st_size < 7e6
    tss = str(data / "benchmarks" / "tss")
    words = ["segswap-eval", "--tss", tss, "--model", "run", "--baseline", "features", "--json",
             "scores.json"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    assert _status(evaluate) == 0
    assert "run" in capsys.readouterr().out


def _status(command: Any) -> int:
    try:
        command()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
