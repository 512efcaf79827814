"""benchmarks/matchers_ablation.py: rows that differ in what their matchers have."""

import runpy
from typing import Any

import pytest
from conftest import ROOT

from segswap.matchers.registry import build


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as it is for the script itself
    return runpy.run_path(str(ROOT / "benchmarks" / "matchers_ablation.py"))


def test_rows_name_options_and_losses_that_there_are(script: dict[str, Any]) -> None:
    rows = script["ROWS"]
    for title, row in rows.items():
        terms = {term.name: term.weight for term in build(row.matcher, **row.options).terms}
        assert row.losses.keys() <= terms.keys(), title
        # A term that is off anyway would make a row like another.
        assert all(terms[name] > 0 for name in row.losses), title
    assert {row.matcher for row in rows.values()} == {"sfnet", "macosnet", "ncnet"}
