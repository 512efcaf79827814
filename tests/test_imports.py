"""Importing the packages reaches for nothing: no network, no GPU, no threads, no Ray."""

import json
import subprocess
import sys

import pytest

PROBE = """
import json, socket, sys, threading
opened = []
original = socket.socket.__init__
def init(self, *args, **kwargs):
    opened.append(args)
    original(self, *args, **kwargs)
socket.socket.__init__ = init
import {module}
print(json.dumps({{
    "modules": sorted(sys.modules), "sockets": len(opened),
    "threads": [t.name for t in threading.enumerate()],
}}))
"""


def state_after(module: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module)], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("segswap", ("torch", "ray")),
        ("segswap.data.shards", ("torch", "ray")),
        ("generators.composition.compose", ("torch", "ray")),
        ("generators.sources.folder", ("torch", "ray")),
        ("pipelines.generate.job", ("torch", "ray")),
        ("segswap.training.trainer", ("ray",)),
    ],
)
def test_importing(module: str, absent: tuple[str, ...]) -> None:
    state = state_after(module)
    assert not set(absent) & set(state["modules"])
    assert state["sockets"] == 0
    assert state["threads"] == ["MainThread"]


def test_generating_inline_loads_no_torch_and_no_ray(tmp_path) -> None:
    module = f"""pipelines.generate.job as job
from pipelines.generate.config import Amount, GenerateConfig, Running
out = {str(tmp_path / "out")!r}
job.generate(GenerateConfig(out, Amount(pairs=1, size=64), running=Running(inline=True)))
"""
    state = state_after(module)
    assert not {"torch", "ray"} & set(state["modules"])
    assert state["sockets"] == 0
