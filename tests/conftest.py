"""Fixtures that all tests share: real images, datasets made by the real command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from hypothesis import settings
from runs import SETTINGS, assert_clean, in_process

from pipelines.command.messages import said
from pipelines.generation.config import main as generate_command

if TYPE_CHECKING:  # not all of it is there where only some extras are installed
    from generators.sources.index import Index, Pool
    from pipelines.training.config import TrainConfig

# Other jobs share the machine: no deadlines. The same examples every time.
settings.register_profile("segswap", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("segswap")

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure() -> None:
    """Threads cost more than they bring on small images, and on busy cores many times as much.

    Torch and the commands that tests start read this when they are imported, later than now.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # also, sums come out the same in child processes
    cv2.setNumThreads(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is found of what earlier runs kept, and nothing is left."""
    os.environ["SEGSWAP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _messages() -> Iterator[None]:
    """Messages stand on standard error, as when a command runs."""
    with said():
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images: SEGSWAP_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("SEGSWAP_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "coco_mini").is_dir():
        pytest.skip(f"no real images: {folder} has no coco_mini (set SEGSWAP_DATA)")
    return folder


@pytest.fixture(scope="session")
def coco(data: Path) -> list[str]:
    """The flags that name the COCO subset's train images."""
    mini = data / "coco_mini"
    return [
        "--annotations", str(mini / "annotations" / "instances_train2017.json"),
        "--images", str(mini / "train2017"),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def script() -> Callable[[str], str]:
    """Path of one of the project's console scripts, as installed beside this Python."""
    return lambda name: str(Path(sys.executable).parent / name)


@pytest.fixture(scope="session")
def generate_process(script: Callable[[str], str]) -> Run:
    """Run segswap-generate as a user would, in a process of its own; returns the finished one."""

    def run(
        *arguments: object, status: int | None = 0, **options: object
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [script("segswap-generate"), *map(str, arguments)],
            capture_output=True, text=True, timeout=180, **options,
        )  # type: ignore[call-overload]  # fmt: skip
        return _checked(done, status)

    return run


@pytest.fixture(scope="session")
def generate(generate_process: Run) -> Run:
    """Run segswap-generate: without workers and in this environment, in this process."""

    def run(
        *arguments: object, status: int | None = 0, **options: object
    ) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        alone = "--workers=0" in words or ("--workers", "0") in pairwise(words)
        if not alone or options.keys() - {"cwd"}:
            return generate_process(*words, status=status, **options)
        done = in_process(generate_command, "segswap-generate", *words, **options)  # type: ignore[arg-type]
        return _checked(done, status)

    return run


def _checked(
    done: subprocess.CompletedProcess[str], status: int | None
) -> subprocess.CompletedProcess[str]:
    if status is not None:
        assert done.returncode == status, done.stdout + done.stderr
    return done


def textured(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with detail at every place, so that one pixel's shift shows: uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 1.2) + 2 * cv2.GaussianBlur(noise, (0, 0), 8)
    return cv2.normalize(picture, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A made COCO dataset: annotations and image folder.

    Eight textured images of 200 x 150, each with segments of two categories of four, so that for
    every segment some image does not show its category.
    """
    folder = tmp_path_factory.mktemp("shapes")
    images, annotations = [], []
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.png"), textured(150, 200, number))
        images.append({"id": number, "file_name": f"{number}.png", "width": 200, "height": 150})
        polygons = [[20, 30, 85, 25, 70, 110, 35, 100], [120, 40, 180, 60, 165, 120, 125, 110]]
        for place, polygon in enumerate(polygons):
            annotations.append(
                {
                    "id": 10 * number + place,
                    "image_id": number,
                    "category_id": 1 + (number + place) % 4,
                    "segmentation": [polygon],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": f"shape {number}"} for number in range(1, 5)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "shapes.json").write_text(json.dumps(content))
    return folder / "shapes.json", folder


@pytest.fixture(scope="session")
def shapes_index(shapes: tuple[Path, Path]) -> "Index":
    """The index of the made dataset."""
    from generators.sources.coco import coco_index

    return coco_index(*shapes, 0.01, 0.6)[0]


@pytest.fixture(scope="session")
def shapes_pool(shapes_index: "Index") -> "Pool":
    """All of the made dataset to draw from."""
    from generators.sources.index import Pool

    return Pool.whole(shapes_index)


@pytest.fixture(scope="session")
def photos_dataset(generate: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 12 train and 4 val pairs from the built-in photographs, 160 px, styled."""
    folder = tmp_path_factory.mktemp("photos")
    styles = folder / "styles"
    styles.mkdir()
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (64, 1)), np.full((64, 64), 90, np.uint8)] * 2, axis=-1)
    cv2.imwrite(str(styles / "ramp.png"), picture[..., :3])
    out = folder / "dataset"
    generate(
        out, "--demo", "--pairs", 12, "--val-pairs", 4, "--val-share", 0.4, "--shard-pairs", 5,
        "--size", 160, "--workers=0", "--style", "histogram", "--styles", styles,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium to open the page with (apt-get install chromium)")
    driven = Browser(tmp_path_factory.mktemp("profile"))
    yield driven
    driven.close()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Made pairs to train on; see `small_dataset`. No test may change it."""
    from training_runs import small_dataset  # not above: torch would start before pytest_configure

    return small_dataset(tmp_path_factory.mktemp("small") / "pairs")


@pytest.fixture
def config(dataset: str, tmp_path: Path) -> "TrainConfig":
    """A short run on them; see `small_config`."""
    from training_runs import small_config

    return small_config(dataset, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> "Callable[[TrainConfig], Path]":
    """Finished runs to compare with; see `undisturbed_runs`."""
    from training_runs import undisturbed_runs

    return undisturbed_runs(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def flags(shapes: tuple[Path, Path]) -> list[str]:
    """The settings of a run of many small shards as flags, on the made images."""
    given = {**SETTINGS, "annotations": shapes[0], "images": shapes[1]}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


@pytest.fixture(scope="session")
def reference(generate: Run, flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of these flags from an undisturbed run in one process."""
    out = tmp_path_factory.mktemp("reference") / "dataset"
    generate(out, *flags, "--workers=0")
    assert_clean(out)
    return out


@pytest.fixture
def start(script: Callable[[str], str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start segswap-generate in a process group of its own; whatever is left is killed."""
    running: list[subprocess.Popen[str]] = []

    def starter(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [script("segswap-generate"), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield starter
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
