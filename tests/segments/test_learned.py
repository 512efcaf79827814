"""Proposers that are runs of seam and sccam: the things of the classes that they have learned."""

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Run
from made_classes import CLASSES, picture, shown_in, use_tiny_trunk
from runs import in_process

from generators.networks.cam import ClassMap
from generators.networks.classes.predictor import Predictor, build_network
from generators.networks.trained import FILE, Trained
from generators.networks.weights import save_network
from generators.segments import build_proposer
from generators.segments.common.classes import class_regions
from pipelines.command import cli
from pipelines.generation.config import GenerateConfig
from pipelines.pages.look_config import main as look_command
from segswap.data.dataset import open_dataset

BASE = {"backbone": "lite2", "classes": list(CLASSES), "size": 64, "affinity": False}
OWN: dict[str, dict[str, Any]] = {"seam": {"pcm": True}, "sccam": {"clusters": 2}}


@pytest.fixture(params=["seam", "sccam"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose weights are random."""
    use_tiny_trunk(monkeypatch)
    torch.manual_seed(0)
    settings = {**BASE, **OWN[method]}
    (tmp_path / "run").mkdir()
    network = build_network(method, settings)
    save_network(tmp_path / "run" / FILE, Trained(method, settings), network)
    return tmp_path / "run"


def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a network in its place that needs no learning: yellow is a disc, blue a square."""

    def class_maps(self: Predictor, images: Any, sizes: Any, most: int, least: float) -> Any:
        made = []
        for image, size in zip(images, sizes, strict=True):
            low = image.astype(np.int16)
            found = [(low[..., 0] - low[..., 2]) > 110, (low[..., 2] - low[..., 0]) > 110]
            made.append([
                ClassMap(name, 0.9, cv2.resize(mask.astype(np.float32), size))
                for name, mask in zip(self.classes, found, strict=True)
                if mask.mean() > 0.02
            ])  # fmt: skip
        return made

    monkeypatch.setattr(Predictor, "class_maps", class_maps)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures of discs, squares and both, and one of nothing."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        image, _ = picture(number, shown_in(number) if number < 6 else ())
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_regions_have_the_class_as_category() -> None:
    """One region an object, each of its class; what two classes call alike is there once."""
    image, masks = picture(2, CLASSES)
    rough = {
        name: cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 3) for name, mask in masks.items()
    }
    maps = [ClassMap(name, 0.9, rough[name]) for name in CLASSES]
    maps.append(ClassMap("ball", 0.6, rough["disc"] * 0.99))
    found = list(class_regions(np.ascontiguousarray(image[..., ::-1]), maps, 0.26))
    assert [each.category for each in found] == list(CLASSES)
    for each in found:
        mask = masks[str(each.category)]
        labels = np.asarray(each.labels, bool)
        assert (labels & mask).sum() > 0.9 * (labels | mask).sum()


def test_a_runs_folder_is_its_proposer(run: Path, method: str) -> None:
    made = build_proposer(str(run))
    assert (made.name, made.weights, made.network) == (method, str(run / FILE), True)
    assert build_proposer(method, str(run)).fingerprint == made.fingerprint
    parsed = cli.parse(GenerateConfig, ["out", "--images", "i", "--segments", str(run)])
    assert parsed.inputs.segments == str(run)
    image = np.ascontiguousarray(picture(1, CLASSES)[0][..., ::-1])
    first, second = (made.propose([image, image], ["", ""], (0.01, 0.9)) for _ in range(2))
    assert first == second  # whatever random weights see


def test_the_same_maps_with_any_number_of_threads(run: Path) -> None:
    predictor = Predictor.load(run)
    image = np.ascontiguousarray(picture(1, CLASSES)[0][..., ::-1])
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(predictor.seen(image, (96, 80), [0, 1]))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0].maps, found[1].maps)
    np.testing.assert_array_equal(found[0].chances, found[1].chances)


def test_pairs_avoid_the_class_of_their_segment(
    run: Path, method: str, photos: Path, generate: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Classes are categories, and an image in which none stands out gives nothing."""
    colours(monkeypatch)
    flags = ["--images", photos, "--segments", run, "--pairs", 6, "--size", 64, "--objects", 1,
             "--one.dilation", 2, "--workers=0"]  # fmt: skip
    done = generate(tmp_path / "out", *flags)
    assert "no segment in 1 of them" in done.stdout
    dataset = open_dataset(tmp_path / "out")
    (entry,) = dataset.manifest["inputs"]
    assert entry["images_without_segments"] == 1
    assert entry["proposals"] == build_proposer(str(run)).fingerprint
    for number in range(6):
        pair = dataset.pair(number)
        segment = pair.objects[0]
        assert segment.category in CLASSES
        assert segment.segment["proposer"] == method
        behind = int(Path(pair.background["image"]).stem)
        assert behind == 6 or segment.category not in shown_in(behind)


def test_a_page_of_segments(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours(monkeypatch)
    done: subprocess.CompletedProcess[str] = in_process(
        look_command, "segswap-look", "--segments", run, photos, "--out", tmp_path / "page.html"
    )
    assert done.returncode == 0, done.stderr
    assert "8 segments in 7 images; nothing found in 1" in done.stdout
    text = (tmp_path / "page.html").read_text()
    assert "disc 1: score 0.90" in text
    assert "square 1: score 0.90" in text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"backbone": "vgg"}, "is of an unknown network"),
        ({"classes": []}, "is of an unknown network"),
        ({"classes": [1, 2]}, "is of an unknown network"),
        ({"size": 10**9}, "is of an unknown network"),
        ({"classes": ["a", "b", "c"]}, "does not fit the network of"),
        ({"affinity": True}, "does not fit the network of"),
        ({"affinity": "yes"}, "settings's affinity is"),
    ],
)
def test_weights_that_do_not_fit(
    changes: dict[str, Any], error: str, run: Path, method: str, tmp_path: Path
) -> None:
    settings = {**BASE, **OWN[method]}
    network = build_network(method, settings)
    save_network(run / FILE, Trained(method, {**settings, **changes}), network)
    with pytest.raises(ValueError, match=error):
        Predictor.load(run)
    save_network(run / FILE, Trained("ldf", settings), network)
    with pytest.raises(ValueError, match="holds weights of ldf; expected those of seam or sccam"):
        Predictor.load(run)


@pytest.mark.parametrize("name", ["seam", "sccam"])
def test_a_method_without_weights_says_what_to_do(name: str, photos: Path, generate: Run) -> None:
    done = generate(photos.parent / "out", "--images", photos, "--segments", name, "--pairs", 2,
                    "--workers=0", status=1)  # fmt: skip
    said = " ".join(done.stderr.split())
    assert f"{name} has no weights of its own: train some (segswap-train-proposer IMAGES" in said
