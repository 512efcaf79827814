"""Every command of the README runs, as it stands but for smaller numbers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_benchmarks import write_davis
from PIL import Image

from generators.sources.photos import photos

ROOT = Path(__file__).parents[1]
# `make` itself is run by CI; what it calls is covered by the demo's test.
NOT_RUN = {"make demo", "make test"}
SMALLER = {
    "--pairs": "6", "--val-pairs": "3", "--steps": "2", "--shard-pairs": "4", "--batch": "2",
    "--size": "96", "--match-size": "96", "--every": "2",
    "--pool": "4",
}  # fmt: skip


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language."""
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """All command lines of the README, without comments, continued lines joined."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    found = [line.split(" #")[0].strip() for line in lines]
    return [line for line in found if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's commands name."""
    place = tmp_path_factory.mktemp("readme")
    annotations, images = photos()
    shutil.copy(annotations, place / "instances.json")
    for name in ("photos", "paintings", "my_photos"):
        (place / name).mkdir()
    for image in json.loads(annotations.read_text())["images"]:
        for copy in ("photos", "my_photos"):
            shutil.copy(images / image["file_name"], place / copy)
    shutil.copy(images / "ihc.png", place / "paintings")
    for part in ("images", "masks"):
        (place / "kinds" / part / "cups").mkdir(parents=True)
    for name in ("coffee.png", "ihc.png"):
        shutil.copy(images / name, place / "kinds" / "images" / "cups")
        with Image.open(images / name) as picture:
            mask = Image.new("L", picture.size)
        mask.paste(255, (100, 100, 300, 300))
        mask.save(place / "kinds" / "masks" / "cups" / name)
    (place / "graf").mkdir()
    for name, image in (("img1.png", "camera.png"), ("img2.png", "camera.png")):
        shutil.copy(images / image, place / "graf" / name)
    np.savetxt(place / "graf" / "H1to2p", np.eye(3))
    shutil.copy(images / "motorcycle_left.png", place / "a.jpg")
    shutil.copy(images / "motorcycle_right.png", place / "b.jpg")
    (place / "scans").mkdir()
    for name in ("camera.png", "coffee.png", "ihc.png"):
        shutil.copy(images / name, place / "scans")
    shutil.copy(images / "motorcycle_left.png", place / "engraving.jpg")
    write_davis(place / "benchmarks" / "davis")
    return place


def smaller(command: str) -> list[str]:
    """The words of a command, its numbers replaced by those of a test, sizes made small."""
    words = command.split()
    for position, word in enumerate(words[:-1]):
        if word in SMALLER:
            words[position + 1] = SMALLER[word]
    small = {
        "segswap-train": ["--size", "96", "--match-size", "96", "--batch", "2"],
        "segswap-train-style": ["--encoder-steps", "2", "--batch", "2", "--crop", "64"],
    }
    given = set(words)
    extra = small.get(words[0], [])
    for flag, value in zip(extra[::2], extra[1::2], strict=True):
        if flag not in given and "transformer" not in command:
            words += [flag, value]
    return words


@pytest.mark.slow
def test_commands_run_in_the_order_of_the_readme(folder: Path) -> None:
    listed = commands()
    assert set(listed) >= NOT_RUN
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for command in listed:
        if command in NOT_RUN:
            continue
        done = subprocess.run(
            smaller(command), cwd=folder, env=environment, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 5


@pytest.mark.slow
def test_python_of_the_readme_runs(folder: Path) -> None:
    if not (folder / "runs" / "first" / "model.safetensors").exists():
        pytest.skip("needs the model that the commands before it train")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))], cwd=folder, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_pictures_and_files_that_the_documents_name_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
        for link in links:
            if "://" not in link:
                assert (ROOT / link).exists(), f"{document} names {link}"
