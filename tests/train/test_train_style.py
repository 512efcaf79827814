"""segswap-train-style: losses fall, pictures move to the style, interruptions cost nothing."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import textured
from safetensors.torch import load_file
from training_runs import history

from generators.sources.photos import photos
from generators.styles.adain import build_decoder, build_encoder
from generators.styles.adain_training import initialise, normalise
from generators.styles.style import Choice, Styler
from pipelines.command import cli
from pipelines.training.style_config import TrainStyleConfig

FLAGS = [
    "--width", "0.125", "--crop", "64", "--batch", "4", "--encoder-steps", "70", "--steps", "80",
    "--every", "60", "--workers", "0",
]  # fmt: skip
# A second thread costs more than it brings on networks as small as these.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photographs, and style pictures of few strong colours."""
    images, styles = (tmp_path_factory.mktemp(name) for name in ("images", "styles"))
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"):
        (images / name).write_bytes((photos()[1] / name).read_bytes())
    for name, colours in {
        "warm": ((0, 60, 250), (0, 200, 250)),
        "cold": ((200, 80, 0), (90, 0, 0)),
    }.items():
        noise = textured(200, 200, 3)[..., :1] > 128
        cv2.imwrite(str(styles / f"{name}.png"), np.where(noise, *map(np.uint8, colours)))
    return images, styles


@pytest.fixture(scope="module")
def train(script: Callable[[str], str], inputs: tuple[Path, Path]) -> Callable[..., str]:
    """Run the command; returns what it printed."""

    def run(out: Path, *flags: str, status: int = 0) -> str:
        done = subprocess.run(
            [script("segswap-train-style"), *map(str, inputs), "--out", str(out), *FLAGS, *flags],
            capture_output=True, text=True, timeout=300, env=ENVIRONMENT,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def trained(train: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "weights"
    train(folder)
    return folder


def test_losses_fall(trained: Path) -> None:
    for name, folder, rows in (("copy", trained / "encoder", 7), ("style", trained, 8)):
        losses = [float(row[name]) for row in history(folder)]
        assert len(losses) == rows
        assert losses[-1] < 0.7 * losses[0]


def test_restyled_pictures_move_towards_the_style(trained: Path, inputs: tuple[Path, Path]) -> None:
    images, styles = inputs
    styler = Styler.from_folder("adain", str(styles), str(trained), "cpu")
    image = cv2.imread(str(images / "astronaut.png"))[..., ::-1]
    for name in styler.names:
        copied, styled = styler.restyle([image, image], [Choice(name, 0.0), Choice(name, 1.0)])
        wanted = styler.picture(name).mean(axis=(0, 1))
        before, after = (np.abs(a.mean(axis=(0, 1)) - wanted).mean() for a in (copied, styled))
        assert after < 0.7 * before
        # What was there is still to be seen.
        grey = [cv2.cvtColor(a, cv2.COLOR_RGB2GRAY).ravel() for a in (image, copied)]
        assert np.corrcoef(grey)[0, 1] > 0.8


def test_samples_are_drawn(trained: Path) -> None:
    # A row of styles and four photographs; a column of photographs and two styles.
    assert cv2.imread(str(trained / "samples.jpg")).shape == (5 * 256, 3 * 256, 3)


def test_a_runs_config_file_repeats_it(trained: Path, inputs: tuple[Path, Path]) -> None:
    given = [*map(str, inputs), "--out", "again"]
    settings = ["--config", str(trained / "config.yaml"), "--workers", "0", "--every", "60"]
    assert cli.parse(TrainStyleConfig, [*given, *settings]) == cli.parse(
        TrainStyleConfig, [*given, *FLAGS]
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", ["encoder", "."])
def test_an_interrupted_run_ends_with_the_same_weights(
    part: str, trained: Path, train: Callable[..., str], script: Callable[[str], str],
    inputs: tuple[Path, Path], tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "weights"
    often = ["10" if flag == "60" else flag for flag in FLAGS]
    process = subprocess.Popen(
        [script("segswap-train-style"), *map(str, inputs), "--out", str(out), *often],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    end = time.monotonic() + 240
    while not (out / part / "last.pt").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 130, printed
    assert "--resume goes on" in printed
    assert (out / "last.pt").exists() == (part == ".")
    assert "--resume goes on with it" in train(out, status=1)
    assert "crop was 64, is 72" in train(out, "--resume", "--crop", "72", status=1)
    train(out, "--resume")
    expected = load_file(trained / "adain.safetensors")
    for key, value in load_file(out / "adain.safetensors").items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


def test_losses_that_burst_end_the_run_and_name_the_images(
    train: Callable[..., str], tmp_path: Path
) -> None:
    said = train(tmp_path / "weights", "--lr", "1e9", status=1)
    assert "error: the loss or its gradient is not finite at step" in said
    noted = json.loads((tmp_path / "weights" / "encoder" / "bad_batch.json").read_text())
    assert len(noted["samples"]) == 4
    for sample in noted["samples"]:
        photograph, picture = sample["name"].split(" and ")
        assert Path(photograph).parent.name.startswith("images")
        assert Path(picture).stem in ("warm", "cold")


def test_unusable_inputs_are_named(
    script: Callable[[str], str], inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.jpg").write_bytes(b"no image")
    done = subprocess.run(
        [script("segswap-train-style"), str(images), str(inputs[1]), "--out", str(tmp_path / "w")],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1
    assert "broken.jpg: not an image" in done.stderr
    assert not (tmp_path / "w").exists()


def test_normalising_changes_scales_alone() -> None:
    encoder, images = build_encoder((4, 6, 8, 10)), torch.rand(4, 3, 64, 64)
    initialise(encoder, build_decoder((4, 6, 8, 10)), seed=1)
    with torch.no_grad():
        before = encoder(images)
        scales = normalise(encoder, images)
        after = encoder(images)
    torch.testing.assert_close(after * scales[:, None, None], before, rtol=1e-3, atol=1e-5)
    sizes, old = (f.square().mean(dim=(0, 2, 3)).sqrt() for f in (after, before))
    alive = old > 0.2 * old.mean()
    assert alive.sum() >= 5
    torch.testing.assert_close(sizes[alive], torch.ones(int(alive.sum())), rtol=1e-3, atol=1e-3)
