"""What works with the base alone and with each extra, and what says which extra it needs.

These tests run in any environment, and so do those of `.ci/environments`, where only some of the
extras are installed; what one lacks is skipped here and tried there.
"""

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from conftest import textured
from made_pairs import pasted_pair, write_dataset

import generators
import segswap
from segswap.files.extras import EXTRAS, MissingExtraError, need_extra

ROOT = Path(__file__).resolve().parents[1]
# The command lines that need extras, with what pip is asked for, and a call that gets as far as
# looking for them.
COMMANDS = {
    "segswap-generate": ("generate", ["pairs", "--demo"]),
    "segswap-train": ("train", ["pairs", "--out", "run"]),
    "segswap-train-proposer": ("train,generate", ["photos", "--masks", "masks", "--out", "ldf"]),
    "segswap-train-style": ("train", ["photos", "paintings", "--out", "style"]),
    "segswap-index": ("search", ["scans", "--out", "index"]),
    "segswap-retrieve": ("search", ["index", "a.png"]),
    "segswap-discover": ("search", ["scans", "--out", "found"]),
}


def has(extra: str) -> bool:
    return all(find_spec(module) for module in EXTRAS[extra])


def needs(extra: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not has(extra), reason=f"the extra {extra} is not installed")


def command(*words: object, status: int = 0) -> str:
    """Run a command of this environment; returns what it wrote."""
    path = Path(sys.executable).parent / str(words[0])
    done = subprocess.run(
        [path, *map(str, words[1:])], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four textured pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), textured(160, 200, number))
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of six pairs."""
    made = [pasted_pair(number) for number in range(6)]
    return write_dataset(tmp_path_factory.mktemp("made") / "pairs", made[:4], made[4:])


def test_all_commands_are_there() -> None:
    names = {entry.name for entry in entry_points(group="console_scripts")}
    assert set(COMMANDS) < names


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_its_extra_says_what_to_install(name: str, tmp_path: Path) -> None:
    extras, words = COMMANDS[name]
    if all(has(extra) for extra in extras.split(",")):
        pytest.skip(f"{extras} is installed")
    said = command(name, *words, status=1)
    assert f"pip install 'segswap[{extras}]'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [(segswap, "Index", "search"), (segswap, "discover", "search"),
     (generators, "generate_pair", "generate")],
)  # fmt: skip
def test_a_function_without_its_extra_says_what_to_install(
    package: ModuleType, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has(extra):
        monkeypatch.setitem(EXTRAS, extra, ("no_such_package",))
    with pytest.raises(MissingExtraError, match=rf"\.{name} needs .*'segswap\[{extra}\]'"):
        getattr(package, name)


def test_an_absent_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(EXTRAS, "generate", ("json", "no_such_package"))
    with pytest.raises(MissingExtraError, match=r"drawing needs no_such_package.*'segswap\[gen"):
        need_extra("drawing", "generate")


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_list_what_pyproject_lists(extra: str) -> None:
    names = {"faiss": "faiss-cpu", "skimage": "scikit-image"}
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.split(f"\n{extra} = [")[1].split("]\n")[0]
    for module in EXTRAS[extra]:
        assert f'"{names.get(module, module)}' in listed, (extra, module)


def test_the_base_matches_two_pictures(pictures: Path) -> None:
    found = segswap.load("segswap-tiny").match(pictures / "0.png", pictures / "0.png")
    assert found.source_mask.mean() > 0.5
    middle = np.array([[0.5, 0.5]])
    np.testing.assert_allclose(found.points(middle), middle, atol=0.01)


def test_the_base_reads_datasets_and_scores(pairs: str) -> None:
    said = command("segswap-eval", pairs, "--split", "val", "--model", "segswap-tiny")
    assert "segswap-tiny" in said


def test_the_base_matches_by_command_line(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "match.png"
    command("segswap-match", pictures / "0.png", pictures / "1.png", "--out", out)
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.std() > 10


@needs("generate")
def test_the_extra_generate_makes_pairs(tmp_path: Path) -> None:
    command("segswap-generate", tmp_path / "pairs", "--demo", "--pairs", 2, "--size", 96,
            "--workers", 0)  # fmt: skip
    assert "2 pairs" in command("segswap-check", tmp_path / "pairs")


@needs("train")
def test_the_extra_train_trains(pairs: str, tmp_path: Path) -> None:
    command("segswap-train", pairs, "--out", tmp_path / "run", "--steps", 2, "--size", 96,
            "--match-size", 96, "--batch", 2, "--workers", 0)  # fmt: skip
    assert (tmp_path / "run" / "model.safetensors").is_file()


@needs("search")
def test_the_extra_search_finds_a_picture(pictures: Path, tmp_path: Path) -> None:
    query = tmp_path / "query.png"
    cv2.imwrite(str(query), cv2.imread(str(pictures / "2.png"))[20:140, 30:160])
    command("segswap-index", pictures, "--out", tmp_path / "index", "--workers", 0)
    said = command("segswap-retrieve", tmp_path / "index", query)
    assert "2.png" in said
