"""benchmarks/rtn_estimates.py: a model of each estimate, each finer than the one before it."""

import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, textured

from segswap.matchers.registry import build
from segswap.models.model import Model, load

Write = Callable[[str, Path], list[Path]]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as it is for the script itself
    found: Write = runpy.run_path(str(ROOT / "benchmarks" / "rtn_estimates.py"))["write_estimates"]
    return found


def test_each_estimate_is_a_model_of_its_own(write: Write, tmp_path: Path) -> None:
    torch.manual_seed(0)
    matcher = build("rtn", width=2)
    torch.nn.init.normal_(matcher.regression.head.weight, std=0.002)
    options = {"width": 2, "coarse_estimates": 2, "fine_estimates": 3}
    whole = Model(matcher.eval(), {"matcher": "rtn", "options": options, "size": 96})
    whole.save(tmp_path / "run")
    folders = write(str(tmp_path / "run"), tmp_path / "out")
    pair = textured(96, 96, 1), textured(96, 96, 2)
    answers = [load(folder).predict(*pair).to_target for folder in folders]
    assert len(answers) == 6
    assert np.array_equal(answers[-1], whole.predict(*pair).to_target)
    assert all(not np.allclose(a, b) for a, b in pairwise(answers))


def test_models_of_other_matchers_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a model of correlation; expected one of rtn"):
        write("segswap-tiny", tmp_path)
