"""The source distribution holds what the tests need, and both distributions what an index wants."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

FEW = ("test_geometry.py", "test_rooms.py", "test_documents.py", "data/test_truth.py")


def run(*words: str | Path, folder: Path = ROOT) -> str:
    """What a command prints; it must not fail."""
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tests_run_from_an_unpacked_source_distribution(tmp_path: Path) -> None:
    # The wheel is made of the source distribution.
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *(tmp_path / "dist").iterdir())
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("segswap-*")
    tests = [f"tests/{name}" for name in FEW]
    said = run(sys.executable, "-m", "pytest", *tests, folder=unpacked)
    assert re.search(r"\d+ passed", said)
    if (ROOT / ".git").exists():
        hidden = (".gitignore", ".dockerignore")
        listed = set(run("git", "ls-files").splitlines()) - set(hidden)
        assert not [name for name in sorted(listed) if not (unpacked / name).is_file()]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"segswap/py.typed", "segswap/models/segswap-base/model.safetensors"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
