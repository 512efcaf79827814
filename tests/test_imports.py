"""Importing the packages reaches for nothing: no network, no GPU, no threads, no Ray."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Used by workers that never load torch: folders, with all modules that are in them, and modules.
WITHOUT_TORCH = (
    "segswap/geometry.py", "segswap/files", "segswap/data", "segswap/drawing", "segswap/fitting",
    "generators/segments", "generators/sources", "generators/styles/style.py",
    "generators/composition", "pipelines/generation/job.py",
)  # fmt: skip
PROBE = """
import importlib, json, socket, sys, threading

opened, original = [], socket.socket.__init__

def init(self, *arguments, **options):
    opened.append(arguments)
    original(self, *arguments, **options)

def look(step):
    there = {"torch", "ray"} & set(sys.modules)
    there |= {"a socket"} if opened else set()
    there |= {"a thread"} if threading.active_count() > 1 else set()
    for name in there:
        reached.setdefault(name, step)

socket.socket.__init__ = init
reached = {}
"""


def reached(steps: str) -> dict[str, str]:
    """What of "torch", "ray", "a socket" and "a thread" is there after the steps of a new process,
    by the step after which it was first seen.
    """
    code = f"{PROBE}\n{steps}\nprint(json.dumps(reached))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def importing(*places: str) -> str:
    """Steps that import every module of some places, one after the other."""
    names = []
    for place in places:
        path = ROOT / place
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        assert found, f"{place} holds no module"
        names += [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in found]
    modules = [name.removesuffix(".__init__") for name in names]
    return f"for name in {modules!r}: importlib.import_module(name); look(name)"


def test_what_workers_import_brings_neither_torch_nor_ray() -> None:
    assert reached(importing(*WITHOUT_TORCH)) == {}


def test_no_module_of_the_library_imports_ray() -> None:
    found = reached(importing("segswap"))
    assert found.pop("torch")
    assert found == {}


def test_generating_inline_loads_no_torch_and_no_ray(tmp_path: Path) -> None:
    steps = f"""
import pipelines.generation.job as job
from pipelines.generation.config import Amount, GenerateConfig, Inputs, Running
out = {str(tmp_path / "out")!r}
amount, inputs = Amount(pairs=1, size=64), Inputs(demo=True)
job.generate(GenerateConfig(out, amount, inputs, running=Running(0)))
look("generate")
"""
    assert not {"torch", "ray", "a socket"} & set(reached(steps))
