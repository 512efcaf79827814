"""Disks that fill up while a command writes: a sentence that says where, and nothing half made."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
MAKE_ROOM = "make room"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size: str) -> Path:
        options = f"remount,size={size}" if mounted else f"size={size}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip(f"mounting is not permitted: {done.stderr.decode().strip()}")
        mounted.append(size)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def run(script: Callable[[str], str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, however it ends; no traceback and no bare number is ever shown."""

    def command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [script(name), *map(str, arguments)], capture_output=True, text=True, timeout=400,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        for sign in ("Traceback", "Errno", "enforce fail"):
            assert sign not in done.stderr, done.stderr
        return done

    return command


def left_over(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_an_index(
    data: Path, disk: Callable[[str], Path], run: Run, tmp_path: Path
) -> None:  # fmt: skip
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((data / "coco_mini" / "train2017").iterdir())[:10]:
        shutil.copy(path, images)
    out = disk("400k") / "index"
    given = ["--model", "segswap-tiny", "--out", out, "--workers", 0]
    done = run("segswap-index", images, *given)
    assert done.returncode == 1
    assert f"No space left on device in {out}" in done.stderr
    assert "the same command goes on" in done.stderr
    assert not left_over(out)
    disk("64M")
    assert run("segswap-index", images, *given).returncode == 0


# A few sizes: the disk is full in the weights, in the checkpoint, in what lies beside them.
@pytest.mark.parametrize("size", ["8k", "100k", "600k", "1200k"])
def test_a_training(dataset: str, disk: Callable[[str], Path], run: Run, size: str) -> None:
    out = disk(size) / "run"
    given = [dataset, "--out", out, "--steps", 4, "--every", 2, "--batch", 2, "--size", 64,
             "--match-size", 64, "--workers", 0, "--device", "cpu", "--negatives", 0]  # fmt: skip
    done = run("segswap-train", *given)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "No space left on device in" in done.stderr
    assert MAKE_ROOM in done.stderr
    assert not left_over(out)


@pytest.mark.parametrize("flag", ["--out", "--json", "--masks"])
def test_a_match(data: Path, disk: Callable[[str], Path], run: Run, flag: str) -> None:
    image = min((data / "coco_mini" / "train2017").iterdir())
    place = disk("4k") / {"--out": "a.jpg", "--json": "a.json", "--masks": "masks"}[flag]
    done = run("segswap-match", image, image, "--model", "segswap-tiny", flag, place)
    assert done.returncode == 1
    assert f"No space left on device in {place.parent if flag != '--masks' else place}" in (
        done.stderr
    )
    assert MAKE_ROOM in done.stderr
    assert not left_over(place.parent)
