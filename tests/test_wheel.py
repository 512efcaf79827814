"""The wheel, installed in a new environment, works from another folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_installed_wheel_generates_and_matches(tmp_path: Path) -> None:
    def run(*words: str | Path, timeout: int = 300) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [str(word) for word in words], cwd=tmp_path, env=environment, capture_output=True,
            text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    new = tmp_path / "new"
    run(sys.executable, "-m", "venv", new)
    run(new / "bin" / "pip", "install", "--quiet", f"{wheel}[generate,train]", timeout=1000)
    where = run(new / "bin" / "python", "-c", "import segswap; print(segswap.__file__)")
    assert str(new) in where
    run(
        new / "bin" / "segswap-generate", "pairs", "--demo", "--pairs", "4", "--val-pairs", "2",
        "--workers=0",
    )  # fmt: skip
    looked = run(new / "bin" / "segswap-look", "pairs", "--out", "gallery.html")
    assert "4 pairs" in looked  # its templates ship too
    run(
        new / "bin" / "segswap-train", "pairs", "--out", "run", "--steps", "2", "--size", "96",
        "--match-size", "96", "--batch", "2",
    )  # fmt: skip
    table = run(
        new / "bin" / "segswap-eval", "pairs", "--model", "run", "segswap-tiny", "--baseline",
        "sift",
    )  # fmt: skip
    assert "sift+ransac" in table
    assert "segswap-tiny" in table  # it ships in the wheel
