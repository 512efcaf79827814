"""segswap-train on pairs of kinds: alone, several sources, and mixed with generated pairs."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_kinds import write_coco, write_folder
from made_pairs import write_dataset
from training_runs import (
    assert_same_run,
    history,
    origin_pair,
    out_of,
    small_config,
    small_dataset,
    stop_after,
)

from pipelines.command import cli
from pipelines.training.config import TrainConfig, command_line, main
from pipelines.training.job import train
from segswap.batches import pictures
from segswap.training.checkpoints import load_state
from segswap.training.matching import MatcherTask


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Eight cats and four dogs, half of each held out."""
    source = write_folder(tmp_path / "kinds", {"cat": list(range(20, 28)), "dog": [30, 31, 32, 33]})
    lines = [f"cat/{n}.png" for n in range(20, 24)] + ["dog/30.png", "dog/31.png"]
    (tmp_path / "kinds" / "heldout.txt").write_text("\n".join(lines))
    return source


@pytest.fixture
def alone(folder: str, tmp_path: Path) -> TrainConfig:
    return replace(small_config("", tmp_path), data=(), category_images=(folder,))


def test_held_out_pictures_are_scored_on_and_decide(
    alone: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best, rows = 4, iter([(0.2, 0.3), (0.4, 0.5), (0.45, 0.3)])
    original = MatcherTask._kind_scores

    def scored(self: MatcherTask, model: Any) -> dict[str, float]:
        assert len(self.val_kinds) == 3
        found = original(self, model)
        assert set(found) == {"kind_iou", "kind_pck_10"}
        assert all(0 <= value <= 1 for value in found.values())
        return dict(zip(found, next(rows), strict=True))

    monkeypatch.setattr(MatcherTask, "_kind_scores", scored)
    assert train(alone) == 0
    found = history(out_of(alone))
    assert [row["val_kind_iou"] for row in found] == ["0.2", "0.4", "0.45"]
    assert all(row["val_mask_iou"] == "" for row in found)
    assert load_state(out_of(alone))["best"] == pytest.approx(0.9)
    assert json.loads((out_of(alone) / "scores.json").read_text())["step"] == best
    assert f"best at step {best}: IoU of kinds 0.400, PCK@10% 0.500" in capsys.readouterr().out


def test_quality_is_the_mean_of_both_sorts_of_scores() -> None:
    row = {"val_mask_iou": 0.5, "val_pck_5": 0.7, "val_kind_iou": 0.2, "val_kind_pck_10": 0.4}
    task = MatcherTask.__new__(MatcherTask)
    assert task.quality(row) == pytest.approx(0.9)
    assert task.quality({"val_kind_iou": 0.2}) == pytest.approx(0.4)
    assert task.quality({"val_mask_iou": 0.5, "val_pck_5": 0.7}) == pytest.approx(1.2)
    assert task.quality({"loss": 1}) is None


def test_without_keypoints_masks_alone_are_scored(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": list(range(4))}, keypoints=False)
    (tmp_path / "kinds" / "heldout.txt").write_text("cat/0.png\ncat/1.png\n")
    config = replace(small_config("", tmp_path), data=(), category_images=(source,), steps=2)
    assert train(config) == 0
    (row,) = history(out_of(config))
    assert row["val_kind_iou"] != ""
    assert row["val_kind_pck_10"] == ""


def test_generated_and_category_pairs_train_together_and_resume(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(
        small_config(small_dataset(tmp_path / "pairs"), tmp_path), batch=4, workers=1,
        category_images=(write_coco(tmp_path / "coco"), folder),
    )  # fmt: skip
    assert train(config) == 0
    rows = history(out_of(config))
    for column in ("mask", "transfer", "corr", "correlation", "keypoints"):
        assert float(rows[-1][column]) > 0
    assert all(rows[-1][f"val_{name}"] for name in ("mask_iou", "kind_iou", "kind_pck_10"))
    cut = replace(config, out=str(tmp_path / "cut"))
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        assert train(cut) == 130
    assert train(replace(cut, resume=True)) == 0
    assert_same_run(out_of(config), out_of(cut))
    run = json.loads((out_of(config) / "run.json").read_text())
    assert list(run["datasets"]) == [*config.data, *config.category_images]


@pytest.mark.parametrize(
    ("mixture", "shares"), [((), [0.5, 0.2, 0.3]), ((1, 2, 1), [0.25, 0.5, 0.25])]
)
def test_shares_of_generated_and_category_pairs(
    mixture: tuple[float, ...], shares: list[float], folder: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By default half and half, the sources by their pictures: four of COCO, six of the folder."""
    from pipelines.training import data

    given: list[list[float]] = []
    original = data.MixedStream

    def noted(streams: Any, weights: Any, **options: Any) -> Any:
        given.append([weight / sum(weights) for weight in weights])
        return original(streams, weights, **options)

    monkeypatch.setattr(data, "MixedStream", noted)
    config = replace(
        small_config(small_dataset(tmp_path / "pairs"), tmp_path), steps=1, every=1,
        category_images=(write_coco(tmp_path / "coco"), folder), mixture=mixture,
    )  # fmt: skip
    assert train(config) == 0
    assert given == [pytest.approx(shares)]


def test_what_has_no_share_is_scored_on_alone(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset of val pairs alone has none to train on; kinds are scored on, and pairs seen."""
    from pipelines.training import data

    train_pairs = write_dataset(tmp_path / "train", [origin_pair(n) for n in range(3)], [])
    val_pairs = write_dataset(tmp_path / "val", [], [origin_pair(9)])
    config = replace(
        small_config(train_pairs, tmp_path), data=(val_pairs, train_pairs), steps=1, every=1,
        category_images=(folder,), mixture=(0, 1, 0),
    )  # fmt: skip
    assert config.learned == (train_pairs,)
    assert train(config) == 0
    (row,) = history(out_of(config))
    assert row["val_mask_iou"]
    assert row["val_kind_iou"]

    alone = replace(config, mixture=(0, 0, 1), out=str(tmp_path / "alone"))
    streams = []
    original = data.TrainingData

    def noted(stream: Any, *scored: Any) -> Any:
        streams.append(stream)
        return original(stream, *scored)

    monkeypatch.setattr(data, "TrainingData", noted)
    assert train(alone) == 0
    assert [type(stream).__name__ for stream in streams] == ["CategoryStream"]


def test_sources_are_read_once(alone: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = pictures.read_pictures

    def noted(source: str, skip_bad: bool) -> Any:
        read.append(source)
        return original(source, skip_bad)

    monkeypatch.setattr(pictures, "read_pictures", noted)
    assert train(replace(alone, steps=1, every=1)) == 0
    assert len(read) == 1


def test_another_list_of_held_out_pictures_is_another_run(alone: TrainConfig, folder: str) -> None:
    assert train(replace(alone, steps=2)) == 0
    (Path(folder) / "heldout.txt").write_text("cat/20.png\n")
    with pytest.raises(ValueError, match="run of another configuration: datasets was"):
        train(replace(alone, steps=2, resume=True))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--category-images", "a", "a"], "--category-images has a twice"),
        (["--mixture", "1"], "--mixture has 1 shares for 2 datasets"),
        (["--live", "--demo", "--mixture", "1"], "--mixture has 1 shares for 2 datasets"),
        (["--hard-negatives", "--init", "segswap-tiny"], "are sought in PAIRS"),
        (
            [
                "--hard-negatives",
                "--init",
                "segswap-tiny",
                "--mixture",
                "0",
                "1",
                "1",
                "--",
                "pairs",
            ],
            "are sought in PAIRS",
        ),
        (["--mixture", "0", "0"], "--mixture is 0 for all"),
        (["--mixture", "-1", "1"], "--mixture has a share of -1.0; expected 0 or more"),
        (["--mixture", "nan", "1"], "--mixture has a share of nan; expected 0 or more"),
        (["--live", "--demo", "--mixture", "0", "1"], "--mixture is 0 for --live"),
    ],
)
def test_the_command_says_what_is_wrong_with_sources(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first = ["--category-images", "a"] + (["b"] if "--live" not in flags else [])
    given = ["segswap-train", "--out", str(tmp_path / "run"), *first, *flags]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_sources_and_their_shares_are_flags_of_several_values() -> None:
    given = ["pairs", "more", "--category-images", "kinds", "a.json:photos", "--out", "run",
             "--mixture", "1", "2", "3", "4"]  # fmt: skip
    config = cli.parse(command_line, given)
    assert config.data == ("pairs", "more")
    assert config.category_images == ("kinds", "a.json:photos")
    assert config.mixture == (1, 2, 3, 4)
