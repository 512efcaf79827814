"""Matchers are found by their files: one more module is a matcher for every command."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import textured
from training_runs import history, small_dataset

import segswap
import segswap.matchers
from pipelines.command import cli
from pipelines.search.index import build_index, collect
from pipelines.training.config import TrainConfig, command_line
from pipelines.training.job import train
from segswap.matchers.base import Matcher
from segswap.matchers.registry import build, matcher_class, names, options_of

EXAMPLE = Path(__file__).parent / "example_matcher.py"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example matcher as a module of the room, called twolevel."""
    room = tmp_path / "room"
    room.mkdir()
    shutil.copy(EXAMPLE, room / "twolevel.py")
    monkeypatch.setattr(segswap.matchers, "__path__", [*segswap.matchers.__path__, str(room)])
    yield
    sys.modules.pop("segswap.matchers.twolevel", None)


def write_kinds(folder: Path) -> Path:
    """Two kinds with three pictures each, with masks."""
    for number, kind in enumerate(["cat", "dog"]):
        for place in ("images", "masks"):
            (folder / place / kind).mkdir(parents=True)
        for picture in range(3):
            image = textured(80, 96, 10 * number + picture)
            cv2.imwrite(str(folder / "images" / kind / f"{picture}.png"), image)
            mask = np.zeros((80, 96), np.uint8)
            mask[20:60, 30:70] = 255
            cv2.imwrite(str(folder / "masks" / kind / f"{picture}.png"), mask)
    return folder


def test_every_name_is_a_matcher_that_can_be_built() -> None:
    own = ["correlation", "macosnet", "ncnet", "rtn", "semantic", "sfnet", "transformer"]
    assert names() == own
    for name in names():
        assert issubclass(matcher_class(name), Matcher)
        assert matcher_class(name).terms
        assert all(option.default is not option.empty for option in options_of(name).values())


def test_names_are_listed_without_importing_torch() -> None:
    code = (
        "import sys; from segswap.matchers.registry import names; names(); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("corelation", {}, "unknown matcher 'corelation'.*did you mean correlation"),
        ("base", {}, "unknown matcher 'base'"),
        ("correlation", {"depth": 3}, "the correlation matcher has no option depth"),
    ],
)
def test_what_there_is_not_is_named(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_a_new_module_brings_its_own_flags(added: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert [name for name in names() if name > "transformer"] == ["twolevel"]
    with pytest.raises(SystemExit):
        cli.parse(command_line, ["--matcher", "twolevel", "--help"])
    said = capsys.readouterr().out
    for part in ("--width", "channels of each level", "--sharp, --no-sharp", "--loss-return"):
        assert part in said
    given = ["pairs", "--out", "o", "--matcher", "twolevel", "--no-sharp", "--loss-return", "2"]
    config = cli.parse(command_line, given)
    assert config.weights == {
        "mask": 1, "transfer": 1, "corr": 1, "keypoints": 1, "return": 2
    }  # fmt: skip
    assert config.given_options == {"sharp": False}


@pytest.mark.parametrize("kind", ["pairs", "categories"])
def test_an_example_of_one_module_is_trained_and_used(
    kind: str, added: None, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    config = {"out": str(out), "matcher": "twolevel", "steps": 3, "every": 3, "batch": 2,
              "workers": 0, "device": "cpu", "options": {"width": 12}}  # fmt: skip
    if kind == "pairs":
        assert train(TrainConfig(data=(small_dataset(tmp_path / "pairs"),), **config)) == 0
    else:
        source = str(write_kinds(tmp_path / "kinds"))
        assert train(TrainConfig(data=(), category_images=(source,), **config)) == 0
    (row,) = history(out)
    learned = {name for name in ("mask", "transfer", "corr", "return") if row.get(name)}
    # Positions are known of a picture of a kind beside itself.
    assert learned == {"mask", "transfer", "return", "corr"}
    assert json.loads((out / "model.json").read_text())["options"] == {"width": 12, "sharp": True}
    model = segswap.load(out)
    match = model.match(textured(70, 90, 1), textured(64, 64, 2))
    assert match.source_mask.shape == (70, 90)
    assert match.prediction.to_target.shape == (4, 4, 2)
    assert match.prediction.source_mask.shape == (8, 8)
    collection = tmp_path / "collection"
    collection.mkdir()
    for number in range(3):
        cv2.imwrite(str(collection / f"{number}.png"), textured(64, 80, number))
    index = build_index(collect([str(collection)]).images, str(out), tmp_path / "index")
    assert list(index.encoding([0, 2])) == ["fine", "coarse"]
    assert len(segswap.retrieve(index, textured(64, 80, 9), model=model)) == 3
    found = segswap.discover([str(collection / f"{n}.png") for n in range(3)], model=model)
    assert len(found.images) == 3
