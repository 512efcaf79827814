"""pipelines.generate, .train and .discover: the commands' work, results instead of prints."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_collection import make_photos, save_small
from training_runs import small_config, stop_after

import pipelines
import segswap
from generators.sources.photos import photos
from pipelines.command.keywords import config_of
from pipelines.generation.config import GenerateConfig
from pipelines.training.job import train
from segswap.data.shards import encode_pair
from segswap.models.model import Model

ROOT = Path(__file__).parents[1]
SMALL = {"demo": True, "size": 64, "workers": 0}
Shown = pytest.CaptureFixture[str]


# --- names --------------------------------------------------------------------------------------


def test_the_functions_are_there_whatever_is_imported_before() -> None:
    """A room of one of their names would hide it; and asking for them imports nothing large."""
    code = """
import pipelines.generation.job, pipelines.training.config, pipelines.discovery.config
import pipelines
assert all(callable(getattr(pipelines, name)) for name in pipelines.__all__)
import sys
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rooms = {path.stem for path in (ROOT / "pipelines").iterdir()}
    assert not rooms & set(pipelines.__all__)


def test_the_library_does_not_name_what_stands_on_it() -> None:
    for path in (ROOT / "segswap").rglob("*.py"):
        assert not re.search(r"\b(pipelines|generators)\b[./]", path.read_text()), path


# --- settings -----------------------------------------------------------------------------------


def test_keywords_are_flags(tmp_path: Path) -> None:
    config = config_of(
        GenerateConfig,
        {
            "out": tmp_path, "images": tmp_path, "annotations": "a.json", "pairs": np.int64(5),
            "categories": ["cat", "dog"], "segment_area": [0.1, 1], "objects": 2, "workers": 0,
            "one": {"rotation": 5, "scale": (0.5, 1)}, "grid_stride": None, "extend": True,
        },
    )  # fmt: skip
    assert config.out == config.inputs.images == str(tmp_path)
    assert (config.amount.pairs, config.amount.grid_stride) == (5, None)
    assert config.inputs.categories == ("cat", "dog")
    assert config.inputs.segment_area == (0.1, 1.0)
    assert config.composition.objects == "2"
    assert (config.one.rotation, config.one.scale, config.one.objects) == (5.0, (0.5, 1.0), 1)
    assert config.mode.extend
    assert config.running.inline
    hash(config)  # workers keep what they have made of a config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairz": 3}, "no setting pairz; the nearest name is pairs"),
        ({"one": {"rotatoin": 3}}, r"no setting one\.rotatoin; the nearest name is one\.rotation"),
        ({"running": 3}, "no setting running; the nearest name is"),
    ],
)
def test_unknown_names_say_the_nearest_one(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        pipelines.generate("out", **SMALL, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": "many"}, "pairs is 'many'; expected int"),
        ({"pairs": 1.5}, r"pairs is 1\.5; expected int"),
        ({"pairs": True}, "pairs is True; expected int"),
        ({"categories": "dog"}, "categories is 'dog'; expected tuple"),
        ({"segment_area": [0.1]}, r"segment_area is \[0\.1\]; expected tuple"),
        ({"fit": "sqash"}, "fit is 'sqash'; expected 'squash' or 'crop' or 'pad'"),
        ({"extend": 1}, "extend is 1; expected bool"),
        ({"pairs": 0}, "--pairs and --val-pairs are both 0"),
        ({"dry_run": True}, "of the command segswap-generate; leave them out"),
        ({"images": "photos"}, "--demo has photographs of its own"),
    ],
)
def test_bad_values_are_value_errors(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        pipelines.generate(tmp_path / "out", **SMALL, **settings)
    assert not (tmp_path / "out").exists()


def test_what_is_lacking_is_said() -> None:
    with pytest.raises(ValueError, match="there are no images to make pairs from"):
        pipelines.generate("out")
    with pytest.raises(ValueError, match="nothing to train on"):
        pipelines.train(out="run")
    with pytest.raises(ValueError, match="no images given"):
        pipelines.discover(out="found")


# --- generate -----------------------------------------------------------------------------------


def test_a_dataset_is_made_extended_and_opened(tmp_path: Path, capsys: Shown) -> None:
    made = pipelines.generate(tmp_path / "out", **SMALL, pairs=5, shard_pairs=3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "pairs: 5/5 pairs" in shown.err
    assert made.splits == {"train": 5}
    more = pipelines.generate(
        tmp_path / "out", **SMALL, pairs=7, shard_pairs=3, extend=True, progress=False
    )
    shown = capsys.readouterr()
    assert shown == ("", "")
    assert len(more) == 7
    assert encode_pair(more.pair(4)) == encode_pair(made.pair(4))
    again = pipelines.generate(tmp_path / "out", **SMALL, pairs=7, shard_pairs=3)
    assert again.manifest == more.manifest
    with pytest.raises(ValueError, match="pairs was 7, is 8"):
        pipelines.generate(tmp_path / "out", **SMALL, pairs=8, shard_pairs=3)


def test_too_much_that_cannot_be_used_is_an_error_and_the_dataset_is_there(
    shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    images = Path(shutil.copytree(shapes[1], tmp_path / "images"))
    (images / "3.png").write_text("no image")
    settings = {
        "annotations": shapes[0], "images": images, "size": 64, "pairs": 3, "objects": 1,
        "one": {"dilation": 2}, "workers": 0, "progress": False,
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="is made, but 1 of 8 images could not be used"):
        pipelines.generate(tmp_path / "out", **settings)
    assert segswap.open_dataset(tmp_path / "out").facts["skipped"] == 1
    pipelines.generate(tmp_path / "more", **settings, max_skipped=0.2)


def test_images_made_anew_in_the_same_place_are_read_again(
    shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    """One process makes several datasets, of the same names."""
    images = Path(shutil.copytree(shapes[1], tmp_path / "images"))
    settings = {
        "images": images, "size": 64, "pairs": 2, "workers": 0, "progress": False,
        "segment_area": (0.001, 0.9), "one": {"dilation": 2, "min_share": 0}, "objects": "1",
    }  # fmt: skip
    pipelines.generate(tmp_path / "out", **settings)
    shutil.rmtree(tmp_path / "out")
    for path in sorted(images.glob("*.png")):
        path.rename(path.with_name(f"new-{path.name}"))
    pair = pipelines.generate(tmp_path / "out", **settings).pair(0)
    named = {pair.background["image"], *(item.segment["image"] for item in pair.objects)}
    assert named <= {path.name for path in images.iterdir()}


# --- train --------------------------------------------------------------------------------------


TRAINING = {
    "steps": 4, "batch": 2, "size": 64, "match_size": 64, "every": 2, "warmup": 2,
    "device": "cpu", "precision": "fp32", "workers": 0,
}  # fmt: skip


def test_a_run_has_its_history_its_scores_and_its_model(
    dataset: str, tmp_path: Path, capsys: Shown
) -> None:
    run = pipelines.train(dataset, out=tmp_path / "run", **TRAINING, loss_mask=0.5)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "steps: 4/4 steps" in shown.err
    assert (run.folder, run.step, run.finished) == (tmp_path / "run", 4, True)
    assert [row["step"] for row in run.history] == [2, 4]
    best = next(row for row in run.history if row["step"] == run.best["step"])
    assert run.best["val_mask_iou"] == pytest.approx(best["val_mask_iou"])
    assert isinstance(run.load(), Model)
    settings = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert settings["loss_mask"] == 0.5
    again = pipelines.train(
        dataset, out=run.folder, **TRAINING, loss_mask=0.5, resume=True, progress=False
    )
    assert capsys.readouterr() == ("", "")
    assert again.history == run.history


def test_the_matchers_own_settings_are_known_by_its_name(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no setting los_mask; the nearest name is loss_mask"):
        pipelines.train(dataset, out=tmp_path / "run", los_mask=1.0)
    with pytest.raises(TypeError, match="no setting backbone; the nearest name is"):
        pipelines.train(dataset, out=tmp_path / "run", backbone="resnet18")
    with pytest.raises(ValueError, match="backbone is 3; expected"):
        pipelines.train(dataset, out=tmp_path / "run", matcher="transformer", backbone=3)
    with pytest.raises(ValueError, match="matcher"):
        pipelines.train(dataset, out=tmp_path / "run", matcher="none")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_says_how_to_go_on(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 2; resume=True goes on"):
            pipelines.train(dataset, out=tmp_path / "run", **TRAINING)
    run = pipelines.train(dataset, out=tmp_path / "run", **TRAINING, resume=True)
    assert run.step == 4


def test_keywords_give_the_config_of_the_command(dataset: str, tmp_path: Path) -> None:
    """So that a run that one of them began is gone on with by the other."""
    config = replace(small_config(dataset, tmp_path), steps=4)
    run = pipelines.train(dataset, out=config.out, **TRAINING)
    assert train(replace(config, resume=True)) == 0
    assert run.history[-1]["step"] == 4


# --- discover -----------------------------------------------------------------------------------


def test_what_repeats_is_found(tmp_path: Path, capsys: Shown) -> None:
    images, model = make_photos(tmp_path / "photos"), save_small(tmp_path / "model")
    found = pipelines.discover(images, out=tmp_path / "out", model=model, workers=0)
    assert capsys.readouterr().out == ""
    record = json.loads((tmp_path / "out" / "groups.json").read_text())
    assert [group.strength for group in found.groups] == [
        group["strength"] for group in record["groups"]
    ]
    assert {Path(path).name for path, _ in found.skipped} == {"broken.jpg", "empty.png"}
    (group,) = found.groups
    assert {Path(member.image).name for member in group.members} == {
        f"photo-{number}.png" for number in range(4)
    }
    for member in group.members:
        left, top, right, bottom = member.box
        assert member.mask.shape == (160, 200)
        assert member.mask[top:bottom, left:right].sum() == member.mask.sum() > 0
    assert sum(found.mask(number) is not None for number in range(len(found.images))) >= 4
    assert found.page.is_file()


# --- docs ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_docs_python_runs_as_it_stands_but_for_smaller_numbers(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    code = "\n".join(blocks)
    for old, new in {
        "pairs=100, val_pairs=20": "pairs=9, val_pairs=2, val_share=0.5",
        "steps=100": "steps=2, size=64, match_size=64, batch=2",
    }.items():
        assert old in code
        code = code.replace(old, new)
    (tmp_path / "photos").mkdir()
    for name in ("camera.png", "coffee.png", "astronaut.png", "chelsea.png", "coins.png"):
        shutil.copy(photos()[1] / name, tmp_path / "photos")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
