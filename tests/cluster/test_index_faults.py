"""An index made by Ray workers: interrupted, killed, gone on with, and the same as any other."""

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

from pipelines.search.index import build_index, collect
from segswap.files.images import read_image
from segswap.models.model import load
from segswap.search.index import Index
from segswap.search.retrieval import retrieve

IMAGES = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        cv2.imwrite(str(folder / f"{number:02d}.png"), textured(200, 240, number))
    (folder / "broken.png").touch()
    return folder


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for_a_shard(process: subprocess.Popen[str], out: Path) -> None:
    limit = time.monotonic() + 240
    while not list(out.glob("shard-*.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_killed_and_run_again_it_gives_the_answers_of_an_undisturbed_one(
    how: str, photos: Path, tmp_path: Path, script: Callable[[str], str]
) -> None:
    out = tmp_path / "photos.index"
    command = [
        script("segswap-index"), str(photos), "--model", "segswap-tiny", "--workers", "2",
        "--out", str(out),
    ]  # fmt: skip
    process = started(command)
    wait_for_a_shard(process, out)
    if how == "kill":
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    else:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 130, said
        assert "the same command goes on" in said
    made = {path: path.stat().st_mtime_ns for path in out.glob("shard-*.json")}
    assert made
    with pytest.raises(ValueError, match="is not finished"):
        Index.open(out)

    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{IMAGES} images, 1 skipped" in done.stdout
    assert "broken.png" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not list(out.glob("*.tmp"))

    index = Index.open(out)
    whole = build_index(collect([str(photos)]).images, "segswap-tiny", tmp_path / "whole")
    assert list(index.images) == list(whole.images)
    assert index.skipped == whole.skipped
    assert np.array_equal(index.sizes, whole.sizes)
    everything = range(IMAGES)
    # Kept in half precision; a worker may sum in another order than this process.
    torch.testing.assert_close(
        dict(index.encoding(everything)), dict(whole.encoding(everything)), rtol=2e-3, atol=1e-3
    )
    model, query = load("segswap-tiny"), read_image(photos / "07.png")
    query[0, 0] = 0  # else it is the image itself, which is left out
    answers = [retrieve(each, query, model=model, shortlist=6) for each in (index, whole)]
    assert Path(answers[0][0].image).name == "07.png"
    for one, other in zip(*answers, strict=True):
        assert one.image == other.image
        assert one.score == pytest.approx(other.score, rel=1e-3)
        assert one.box == pytest.approx(other.box, abs=10)  # a cell: its edge is at a threshold
