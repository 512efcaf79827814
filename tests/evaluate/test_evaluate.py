"""segswap-eval: scores of models and baselines on made and on real pairs, in two passes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_known import write_sequence, write_tss
from made_models import save_model
from made_pairs import pasted_pair, write_dataset

from pipelines.evaluate import predictions
from pipelines.evaluate.config import EvalConfig
from pipelines.evaluate.job import evaluate, score_methods, table
from pipelines.evaluate.pair_sets import real_sets
from pipelines.evaluate.predictions import ellipse_names
from segswap.evaluation.baselines import ellipse
from segswap.evaluation.metrics import Scores
from segswap.models.model import Model
from segswap.models.prediction import Prediction

COLUMNS = [
    "mask IoU", "mask precision", "mask recall", "PCK@1%", "PCK@3%", "PCK@5%", "false area"
]  # fmt: skip
NAN = float("nan")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three train pairs and one val pair without styled versions."""
    folder = tmp_path_factory.mktemp("made") / "pairs"
    return write_dataset(folder, [pasted_pair(n) for n in range(3)], [pasted_pair(9)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model, called "tiny"; not to be changed."""
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny"))


def everything(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """In place of SIFT a method that takes all to be shared; returns the images it is given."""
    asked = []

    def noted(source: np.ndarray, target: np.ndarray) -> Prediction:
        asked.append((source, target))
        full, grid = np.ones((4, 4), np.float32), np.zeros((4, 4, 2), np.float32)
        return Prediction(grid, grid, full, full)

    monkeypatch.setattr(predictions, "sift", noted)
    return asked


# --- tables ----------------------------------------------------------------------------------


def read_tables(text: str) -> dict[str, dict[str, dict[str, float]]]:
    """Title, method and column to the number printed there."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    parts = text.strip().split("\n\n")
    for title, part in zip(parts[::2], parts[1::2], strict=True):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()
        ]
        tables[title.removesuffix(":")] = {
            name: {k: float(v) for k, v in zip(head[1:], values, strict=True) if v != "-"}
            for name, *values in rows
        }
    return tables


def test_tables_and_json_hold_the_same_scores(
    model: str, photos_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.json"
    config = EvalConfig(
        str(photos_dataset), model=(model,), baseline=("sift", "features"), json=str(path),
        homographies=str(write_sequence(tmp_path / "planes" / "wall")),
        tss=str(write_tss(tmp_path / "tss")), limit=2,
    )  # fmt: skip
    assert evaluate(config) == 0
    tables = read_tables(capsys.readouterr().out)
    content = json.loads(path.read_text())
    assert content["settings"]["model"] == [model]
    assert list(content["sets"]) == ["pairs", "stereo", "homographies", "tss-cars"]
    assert list(tables) == [entry["title"] for entry in content["sets"].values()]
    assert list(tables)[:2] == [f"{photos_dataset}, val, 2 pairs", "stereo_motorcycle, 1 pair"]
    for entry in content["sets"].values():
        rows = tables[entry["title"]]
        assert list(rows) == ["tiny (correlation)", "features of tiny", "sift+ransac"]
        for name, row in rows.items():
            scores = {k: v for k, v in entry["scores"][name].items() if v is not None}
            assert list(row.values()) == pytest.approx(list(scores.values()), abs=5e-4)
            assert all(0 <= value <= 1 for value in row.values())
    pairs, stereo, planes, cars = tables.values()
    assert list(pairs["sift+ransac"]) == COLUMNS
    assert list(stereo["sift+ransac"]) == list(planes["sift+ransac"]) == COLUMNS[3:6]
    assert list(cars["sift+ransac"]) == COLUMNS[:6]
    # SIFT on photographs, and fixed descriptors on a real stereo pair, find something.
    assert pairs["sift+ransac"]["PCK@5%"] > 0.2
    assert planes["sift+ransac"]["PCK@1%"] > 0.9
    assert stereo["tiny (correlation)"]["PCK@5%"] > 0.5


def test_the_best_of_five_ellipses_is_shown_where_masks_are_scored(tmp_path: Path) -> None:
    rows = score_methods(EvalConfig(baseline=("sift", "ellipse"), tss=str(write_tss(tmp_path))))
    assert list(rows["stereo"]) == ["sift+ransac"]
    _, best = rows["tss-cars"]
    assert best in ellipse_names().values()
    # The same table with each of them.
    (pairs,) = real_sets(None, str(tmp_path))[1:]
    (task,) = pairs.tasks()
    overlaps = {
        name: task.score(ellipse(task.source, task.target, share)).mask_iou
        for share, name in ellipse_names().items()
    }
    assert rows["tss-cars"][best].mask_iou == max(overlaps.values()) == overlaps[best]


def test_table_leaves_out_what_nobody_has_and_marks_what_one_lacks() -> None:
    one = Scores(0.5, 0.25, 1, NAN, NAN, NAN, NAN)
    other = Scores(0.125, NAN, 0, NAN, NAN, NAN, NAN)
    assert table({"a": one, "b": other}).splitlines() == [
        "| method | mask IoU | mask precision | mask recall |",
        "|---|---|---|---|",
        "| a | 0.500 | 0.250 | 1.000 |",
        "| b | 0.125 | - | 0.000 |",
    ]


def test_a_score_that_is_not_there_is_null_in_json(made: str, tmp_path: Path) -> None:
    # One pair alone has no other pair to share nothing with.
    path = tmp_path / "scores.json"
    evaluate(EvalConfig(made, baseline=("sift",), json=str(path)))
    scores = json.loads(path.read_text())["sets"]["pairs"]["scores"]["sift+ransac"]
    assert scores["false_area"] is None
    assert scores["mask_iou"] is not None
    assert "NaN" not in path.read_text()


def test_several_models_are_told_apart_by_their_folders(model: str, tmp_path: Path) -> None:
    others = save_model(tmp_path / "other", seed=1), save_model(tmp_path / "tiny", seed=2)
    rows = score_methods(EvalConfig(model=(model, *map(str, others))))["stereo"]
    assert list(rows) == [
        f"{model} (correlation)", "other (correlation)", f"{tmp_path / 'tiny'} (correlation)"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"names .* twice"):
        EvalConfig(model=(model, model))


# --- what is matched -------------------------------------------------------------------------


def test_every_pair_is_also_matched_with_another_ones_target(
    made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = everything(monkeypatch)
    rows = score_methods(EvalConfig(made, split="train", baseline=("sift",)))
    assert rows["pairs"]["sift+ransac"].false_area == 1
    pairs = [(s.tobytes(), t.tobytes()) for s, t in asked if s.shape == (96, 96, 3)]
    assert len(pairs) == 6
    assert len(asked) == 7  # the last one is the stereo pair
    targets = {source: {t for s, t in pairs if s == source} for source, _ in pairs}
    assert len(targets) == 3
    assert all(len(found) == 2 for found in targets.values())


def test_limit_scores_the_first_pairs(made: str, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    score_methods(
        EvalConfig(made, split="train", baseline=("sift",), limit=2, predictions=str(keep))
    )
    names = {path.name for path in (keep / "sift+ransac" / "pairs").iterdir()}
    assert names == {
        "000000000.npz", "000000000.negative.npz", "000000001.npz", "000000001.negative.npz",
        "predictions.json",
    }  # fmt: skip
    assert (keep / "sift+ransac" / "stereo" / "motorcycle.npz").is_file()


def test_styled_images_are_matched_where_there_are_some(
    photos_dataset: Path, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = everything(monkeypatch)
    for styled in (False, True):
        score_methods(EvalConfig(str(photos_dataset), baseline=("sift",), styled=styled, limit=1))
    assert not np.array_equal(asked[0][0], asked[2][0])
    with pytest.raises(ValueError, match=r"no styled images.*--styled"):
        score_methods(EvalConfig(made, baseline=("sift",), styled=True))


def test_a_dataset_at_a_url_scores_the_same(
    made: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for path in Path(made).iterdir():
        store.pipe_file(f"/bucket/pairs/{path.name}", path.read_bytes())
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path))
    here, there = (
        score_methods(EvalConfig(where, split="train", baseline=("sift",)))["pairs"]
        for where in (made, "memory://bucket/pairs")
    )
    assert here == there


# --- two passes ------------------------------------------------------------------------------


def test_predictions_are_made_once(
    made: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "kept"
    config = EvalConfig(made, split="train", model=(model,), predictions=str(keep))
    first = score_methods(config)
    asked = 0
    original = Model.predict

    def counted(self: Model, source: np.ndarray, target: np.ndarray) -> Prediction:
        nonlocal asked
        asked += 1
        return original(self, source, target)

    monkeypatch.setattr(Model, "predict", counted)
    assert repr(score_methods(config)) == repr(first)  # NaN is not equal to itself
    assert asked == 0
    # An unfinished export is done again.
    (keep / "tiny_correlation_" / "pairs" / "predictions.json").unlink()
    assert repr(score_methods(config)) == repr(first)
    assert asked == 6


def test_predictions_of_another_model_or_split_are_refused(
    made: str, model: str, tmp_path: Path
) -> None:
    def score(model: Path | str, split: str = "val") -> None:
        score_methods(
            EvalConfig(made, split, model=(str(model),), predictions=str(tmp_path / "kept"))  # type: ignore[arg-type]
        )

    copy = Path(shutil.copytree(model, tmp_path / "copy" / "tiny"))
    score(model)
    score(copy)  # the same model elsewhere is the same
    with pytest.raises(ValueError, match="another method"):
        score(save_model(tmp_path / "other" / "tiny", seed=5))
    with pytest.raises(ValueError, match="another split"):
        score(model, "train")
    # At another size the same weights find other things.
    settings = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(settings | {"size": 96}))
    with pytest.raises(ValueError, match="another method"):
        score(copy)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("000000009.npz", None),
        ("000000009.npz", b"PK\x03\x04 no more"),
        ("000000009.npz", b""),
        ("predictions.json", b'{"method'),
    ],
)
def test_damaged_predictions_are_named_with_what_to_delete(
    name: str, damage: bytes | None, made: str, tmp_path: Path
) -> None:
    config = EvalConfig(made, baseline=("sift",), predictions=str(tmp_path))
    score_methods(config)
    folder = tmp_path / "sift+ransac" / "pairs"
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage)
    with pytest.raises(ValueError, match=name) as caught:
        score_methods(config)
    assert f"delete {folder} and run again" in str(caught.value)
    shutil.rmtree(folder)
    score_methods(config)


# --- refusals and the command ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to score"),
        ({"baseline": ("features",)}, "features needs the --model"),
        ({"baseline": ("sift",), "data": "x", "limit": 0}, "--limit is 0"),
        ({"baseline": ("sift",), "styled": True}, "PAIRS, which are not given"),
        ({"baseline": ("sift",), "limit": 3}, "PAIRS, which are not given"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvalConfig(**settings)


def test_unusable_evaluations_are_refused(made: str, tmp_path: Path) -> None:
    for config, message in (
        (EvalConfig(str(tmp_path), baseline=("sift",)), "no finished dataset"),
        (EvalConfig(made, model=(str(tmp_path),)), "holds no model"),
        (EvalConfig(made, baseline=("sift",), device="cuda:99"), "--device cuda:99 is not there"),
        (EvalConfig(baseline=("sift",), homographies=str(tmp_path)), "no planar sequence"),
        (EvalConfig(baseline=("sift",), tss=str(tmp_path)), "no pair of TSS"),
        (EvalConfig(baseline=("sift",), json=made), "--json .* is a folder"),
        (EvalConfig(baseline=("sift",), json="no/x.json"), "--json no/x.json is in no folder"),
        (EvalConfig(baseline=("sift",), predictions=__file__), "is a file; expected a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(config)
    train_only = write_dataset(tmp_path / "train", [pasted_pair(0)])
    with pytest.raises(ValueError, match="no pairs in split 'val'"):
        evaluate(EvalConfig(train_only, baseline=("sift",)))


def test_eval_command_takes_several_values_and_no_dataset(
    model: str, script: Callable[[str], str]
) -> None:
    done = subprocess.run(
        [script("segswap-eval"), "--model", model, "--baseline", "sift", "features"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tables = read_tables(done.stdout)
    assert list(tables) == ["stereo_motorcycle, 1 pair"]
    assert len(tables["stereo_motorcycle, 1 pair"]) == 3
