"""segswap-train-proposer: ldf in two rounds, interrupted and resumed, and what it cannot use."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import textured
from runs import in_process
from safetensors.torch import load_file
from training_runs import history

from generators.networks.ldf.predictor import Predictor
from generators.networks.ldf.samples import Masked, MaskedPictures
from generators.networks.trained import FILE
from generators.segments import build_proposer
from pipelines.command.stopping import Stopping
from pipelines.training.proposer_config import main

FLAGS = ["--steps", 50, "--batch", 4, "--size", 64, "--width", 8, "--workers", 0, "--every", 25,
         "--lr", 0.005, "--device", "cpu"]  # fmt: skip


def picture(seed: int, height: int = 80, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on a dark texture, BGR, and its mask."""
    rng = np.random.default_rng(seed)
    image = (textured(height, width, seed) * 0.4).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    centre = int(rng.integers(30, width - 30)), int(rng.integers(30, height - 30))
    cv2.circle(mask, centre, 22, 255, -1)
    image[mask > 0] = (60, 220, 240)
    return image, mask


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve pictures, two of them in a folder below, and their masks."""
    images, masks = (tmp_path_factory.mktemp(name) for name in ("images", "masks"))
    for number in range(12):
        image, mask = picture(number)
        name = f"{'more/' if number > 9 else ''}{number:02}"
        for path, content in ((images / f"{name}.jpg", image), (masks / f"{name}.png", mask)):
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), content)
    return images, masks


def train(images: Path, masks: Path, out: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    words = [images, "--masks", masks, "--out", out, *FLAGS, *flags]
    return in_process(main, "segswap-train-proposer", *map(str, words))


@pytest.fixture(scope="module")
def trained(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "ldf"
    done = train(*inputs, out)
    assert done.returncode == 0, done.stderr
    assert f"{out / FILE}: of 12 pictures; --segments {out} takes it" in done.stdout
    return out


def test_both_rounds_learn(trained: Path) -> None:
    for folder in (trained, trained / "coarse"):
        rows = history(folder)
        assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
        assert float(rows[-1]["iou"]) < float(rows[0]["iou"])
    one, other = (load_file(folder / FILE) for folder in (trained, trained / "coarse"))
    assert any(not one[key].equal(other[key]) for key in one)


def test_the_second_round_learns_what_the_first_predicts(
    trained: Path, inputs: tuple[Path, Path]
) -> None:
    written = sorted(path.name for path in (trained / "coarse" / "labels").iterdir())
    assert len(written) == 24
    assert written[:2] == ["000000.body.png", "000000.detail.png"]
    predictor = Predictor.load(trained / "coarse")
    image = cv2.imread(str(inputs[0] / "00.jpg"))[..., ::-1]
    maps = predictor.maps([image], [(64, 64)])[0]
    for part in ("body", "detail"):
        kept = cv2.imread(str(trained / "coarse" / "labels" / f"000000.{part}.png"), -1)
        assert np.abs(kept / 255 - getattr(maps, part)).max() < 0.01


def test_its_proposer_finds_such_things(trained: Path) -> None:
    image, mask = picture(99)
    maps = Predictor.load(trained).maps([np.ascontiguousarray(image[..., ::-1])])[0]
    assert maps.saliency[mask > 0].mean() > maps.saliency[mask == 0].mean() + 0.2
    assert build_proposer(str(trained)).propose([image], [""], (0.01, 0.9))


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(
    trained: Path, inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the first round, while labels are predicted, and in the second."""
    out, stops = tmp_path / "ldf", iter((25, 58, 30))

    @contextmanager
    def in_order(signals: Stopping, saying: str) -> Iterator[Callable[[], bool]]:
        left = next(stops, 10**6)

        def asked() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        yield asked

    monkeypatch.setattr(Stopping, "in_order", in_order)
    resume: list[str] = []
    for _ in range(3):
        assert train(*inputs, out, *resume).returncode == 130
        resume = ["--resume"]
    done = train(*inputs, out, "--resume")
    assert done.returncode == 0, done.stderr
    for name in (FILE, f"coarse/{FILE}"):
        one, other = load_file(trained / name), load_file(out / name)
        assert all(one[key].equal(other[key]) for key in one)


def test_one_round_and_no_decoupling(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    done = train(*inputs, tmp_path / "plain", "--decoupling", "none", "--steps", 4)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "plain" / "coarse").exists()
    assert "body" not in history(tmp_path / "plain")[0]
    done = train(*inputs, tmp_path / "once", "--rounds", 1, "--steps", 4, "--decoupling", "linear")
    assert done.returncode == 0, done.stderr
    assert "body" in history(tmp_path / "once")[0]
    assert not (tmp_path / "once" / "coarse").exists()


def test_another_run_is_not_written_over(trained: Path, inputs: tuple[Path, Path]) -> None:
    assert "holds a run; --resume goes on with it" in train(*inputs, trained).stderr
    done = train(*inputs, trained, "--resume", "--width", 16)
    assert done.returncode == 1
    assert "width was 8, is 16" in done.stderr


# --- samples -----------------------------------------------------------------------------------


def test_samples_follow_from_their_numbers(inputs: tuple[Path, Path]) -> None:
    pictures = [Masked(inputs[0] / f"{n:02}.jpg", inputs[1] / f"{n:02}.png") for n in range(10)]
    samples = MaskedPictures(pictures, 160, "linear", 3, 0)
    assert samples.sizes == [160, 128, 96, 64]
    assert {samples.name(n) for n in range(10)} == {str(each.image) for each in pictures}
    assert [samples.name(n) for n in range(10)] != [samples.name(n) for n in range(10, 20)]
    first = list(samples.batches(3, 0, 4))
    (again,) = samples.batches(3, 2, 3)
    for one, other in zip(first[2], again, strict=True):
        assert one.equal(other)
    assert len({each[0].shape[-1] for each in samples.batches(2, 0, 12)}) > 1
    for images, labels in first:
        assert images.shape == labels.shape == (3, 3, images.shape[-1], images.shape[-1])
        mask, body, detail = labels.int().unbind(1)
        # Where the disc is bright the mask is white, whatever was cropped and mirrored.
        assert images[:, 1].float()[mask > 200].mean() > 180
        assert images[:, 1].float()[mask < 50].mean() < 90
        assert (body + detail - mask).abs().max() <= 3


# --- what cannot be used -----------------------------------------------------------------------


def test_pictures_without_a_mask_that_fits_are_left_out(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in inputs[1].glob("0*.png"):
        (masks / path.name).write_bytes(path.read_bytes())
    cv2.imwrite(str(masks / "03.png"), np.zeros((50, 40), np.uint8))
    (masks / "04.png").write_text("no image")
    done = train(inputs[0], masks, tmp_path / "out", "--rounds", 1, "--steps", 2)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    for reason in (r"03.jpg: its mask \S+03.png is 40 x 50, the picture 96 x 80",
                   r"04.jpg: its mask \S+04.png: not an image", r"10.jpg: its mask \S+: missing",
                   r"11.jpg: its mask \S+: missing"):  # fmt: skip
        assert re.search(f"left out: \\S+{reason}", said), said
    assert "of 8 pictures; 4 pictures were left out" in done.stdout


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--masks", "nowhere"], "--masks nowhere is not a folder; expected a PNG for each"),
        (["--masks", "."], "none of .*'s 12 pictures can be used: .*its mask .*: missing"),
        (["--size", 100], "--size is 100; expected a multiple of 32 from 64 on"),
        (["--batch", 1], "--batch is 1; expected at least 2"),
        (["--lr", 0], "--lr is 0.0; expected a positive number"),
        (["--backbone", "resnet50", "--backbone-weights", "shipped"], "shipped are lite2's"),
        (["--backbone-weights", "no.pth"], "no.pth"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(
    flags: list[object], error: str, inputs: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = train(*inputs, tmp_path / "out", *flags)
    assert done.returncode in (1, 2)
    assert re.search(error, " ".join(done.stderr.split())), done.stderr
    assert "Traceback" not in done.stderr


def test_masks_are_asked_for(tmp_path: Path) -> None:
    done = in_process(main, "segswap-train-proposer", str(tmp_path), "--out", "o")
    assert "--method ldf learns from masks: give --masks FOLDER" in " ".join(done.stderr.split())
