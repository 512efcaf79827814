"""Where the time of a pair goes: stages timed as they run, summed up in small histograms."""

import math
import time
from collections import Counter, defaultdict
from types import TracebackType

# A stage's histogram: how many pairs took about GROWTH ** key milliseconds, by key.
Histogram = Counter[int]
GROWTH = 1.05  # between one bin and the next: percentiles are exact to half of this
_SHORTEST = 1e-3  # milliseconds; what is shorter counts as this

_spent: defaultdict[str, float] = defaultdict(float)  # seconds by stage since the last lap
_running: list[str] = []  # the innermost stage last
_since = 0.0
_histograms: defaultdict[str, Histogram] = defaultdict(Counter)


class stage:  # noqa: N801 - reads as `with stage("decode"):`
    """Times a block as a stage of its process's work; a stage inside another one interrupts it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        _charge()
        _running.append(self.name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _charge()
        _running.pop()


def _charge() -> None:
    """Give the time since the last change of stages to the stage that it was spent in."""
    global _since
    now = time.perf_counter()
    if _running:
        _spent[_running[-1]] += now - _since
    _since = now


def lap(pairs: int = 1) -> None:
    """The stages that ended since the last lap went into so many pairs, in equal parts."""
    for name in _spent.keys() - set(_running):
        milliseconds = max(1000 * _spent.pop(name) / pairs, _SHORTEST)
        _histograms[name][round(math.log(milliseconds, GROWTH))] += pairs


def read() -> dict[str, Histogram]:
    """The stages' histograms since the last call; starts anew, also after an interrupted shard."""
    taken = dict(_histograms)
    _histograms.clear()
    _spent.clear()
    return taken


def percentile(histogram: Histogram, share: float) -> float:
    """Milliseconds that a share of the pairs stays below, exact to 2.5%.

    Args:
        histogram: of at least one pair.
        share: 0 to 1.
    """
    wanted, seen = share * histogram.total(), 0
    for key in sorted(histogram):
        seen += histogram[key]
        if seen >= wanted:
            break
    return GROWTH**key
