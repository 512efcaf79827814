"""Where the time goes: the stopwatch's stages, their histograms, and throughput.json."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st

from pipelines.generation.throughput import throughput
from segswap.files import stopwatch
from segswap.files.stopwatch import GROWTH, lap, percentile, read, stage


class Clock:
    """A clock that stands still between two calls of `pass_`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", made)
    read()
    return made


def about(milliseconds: float, pairs: int = 1) -> Counter[int]:
    return Counter({round(np.log(milliseconds) / np.log(GROWTH)): pairs})


def test_a_stage_within_another_interrupts_it(clock: Clock) -> None:
    with stage("finish"):
        with stage("compose"):
            clock.pass_(3)
            with stage("decode"):
                clock.pass_(5)
            clock.pass_(4)
            with stage("decode"):
                clock.pass_(6)
        clock.pass_(20)
        lap()  # finish still runs: it counts when it has ended
        assert read() == {"compose": about(7), "decode": about(11)}
        clock.pass_(10)
    clock.pass_(1000)  # in no stage
    lap(10)
    assert read() == {"finish": about(3, 10)}
    assert read() == {}


def test_an_error_ends_its_stages(clock: Clock) -> None:
    def fail() -> None:
        clock.pass_(2)
        raise KeyError

    with pytest.raises(KeyError), stage("compose"), stage("decode"):
        fail()
    clock.pass_(100)
    lap()
    assert read() == {"compose": about(1e-3), "decode": about(2)}


@given(
    st.lists(st.floats(0.01, 60_000), min_size=1, max_size=300), st.floats(0.01, 1.0),
    st.integers(1, 5),
)  # fmt: skip
def test_percentiles_of_merged_histograms(times: list[float], share: float, parts: int) -> None:
    """Within half a bin of those of the times themselves, however the pairs were parted."""
    merged: Counter[int] = Counter()
    for part in range(parts):
        merged.update(sum((about(each) for each in times[part::parts]), Counter()))
    exact = np.quantile(times, share, method="inverted_cdf")
    assert percentile(merged, share) == pytest.approx(exact, rel=0.026)


def test_a_run_that_made_nothing_has_no_speed() -> None:
    """All shards were there already, from runs with other numbers of pairs a second."""
    record = {"shard": {"pairs": 4, "bytes": 4002}, "stages": {"decode": {"0": 3, "14": 1}}}
    found = throughput([record, record], made=0, seconds=0.5, workers=2)
    assert found["pairs_per_second"] is None
    assert found["bytes_per_pair"] == 1000  # 1000.5 to even
    assert found["stage_milliseconds"]["decode"] == {"median": 1.0, "p95": 1.98}


def test_the_file_of_a_run(generate: Run, photos_dataset: Path, tmp_path: Path) -> None:
    content = json.loads((photos_dataset / "throughput.json").read_text())
    assert (content["pairs"], content["pairs_this_run"], content["workers"]) == (16, 16, 1)
    rate = content["pairs_this_run"] / content["wall_seconds"]
    assert content["pairs_per_second"] == pytest.approx(rate, rel=0.01)
    shards = sum(path.stat().st_size for path in photos_dataset.glob("*.tar"))
    assert content["bytes_per_pair"] == round(shards / 16)
    stages = content["stage_milliseconds"]
    assert set(stages) == {"decode", "compose", "style", "encode", "write", "finish"}
    assert all(0 < each["median"] <= each["p95"] for each in stages.values())


def test_progress_without_a_terminal(generate: Run, tmp_path: Path) -> None:
    done = generate(
        tmp_path / "out", "--demo", "--pairs", 4, "--shard-pairs", 2, "--size", 64, "--workers=0"
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pairs: 4/4 pairs, ")
    assert last.endswith("/s, 00:00 left  2/2 shards")
