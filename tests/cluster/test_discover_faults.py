"""segswap-discover killed and interrupted: what is whole is kept, and then the same answers."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_collection import command, make_photos, results, run, save_small
from runs import wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
IMAGES = 16  # 120 pairs, in four files


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "some", IMAGES, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(
    photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(photos, "--model", model, "--out", out, "--workers=0")
    return results(out)


@pytest.fixture
def start() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test began; whatever is left is killed."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def begun(start: list[subprocess.Popen[str]], *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    start.append(process)
    return process


def pair_files(out: Path) -> list[Path]:
    return sorted((out / "pairs").glob("pairs-*.npz"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["--workers=0"], id="inline"),
        pytest.param(["--workers", 2], id="workers", marks=pytest.mark.slow),
    ],
)
def test_killed_while_matching_and_run_again(
    start: list[subprocess.Popen[str]], photos: Path, model: Path,
    undisturbed: dict[str, bytes], tmp_path: Path, how: list[object],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    given = [photos, "--model", model, "--out", out, *how]
    process = begun(start, *given)
    wait_for(lambda: pair_files(out), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "groups.json").exists()
    whole = {path: path.stat().st_mtime_ns for path in pair_files(out)}
    assert 0 < len(whole) < 4
    run(*given)
    assert results(out) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_interrupted_once(
    start: list[subprocess.Popen[str]], photos: Path, model: Path,
    undisturbed: dict[str, bytes], tmp_path: Path,
) -> None:  # fmt: skip
    """What is under way is finished, no more is begun, and the same command goes on."""
    out = tmp_path / "out"
    given = [photos, "--model", model, "--out", out, "--workers=0"]
    process = begun(start, *given)
    wait_for(lambda: pair_files(out), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert output.strip().endswith("the same command goes on where it stopped")
    assert "Traceback" not in output
    assert not (out / "groups.json").exists()
    assert 0 < len(pair_files(out)) < 4
    run(*given)
    assert results(out) == undisturbed


@pytest.mark.slow
def test_a_damaged_file_of_pairs_is_named(photos: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [photos, "--model", model, "--out", out, "--workers=0", "--neighbours", 1]
    run(*given)
    damaged = pair_files(out)[0]
    damaged.write_bytes(damaged.read_bytes()[:500])
    done = run(*given, status=1)
    assert f"{damaged} cannot be read as links" in done.stderr
    damaged.unlink()
    run(*given)
