"""Pairs of pictures in folders of kinds: each once, evenly, and always the same ones."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_benchmarks import write_animals, write_cosegmentation, write_kinds

from pipelines.benchmark.sets import BENCHMARKS, cosegmentation
from pipelines.benchmark.sets.kinds import in_turn, pairs_between, pairs_within, spread


def paths(count: int, kind: str = "cat") -> list[Path]:
    return [Path(kind) / str(number) for number in range(count)]


@pytest.mark.parametrize("count", range(8))
def test_pairs_of_a_kind_are_all_there_once(count: int) -> None:
    own = paths(count)
    pairs = list(pairs_within(own, np.random.default_rng(0)))
    assert len(pairs) == count * (count - 1) // 2
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(len(set(pair)) == 2 for pair in pairs)
    # So many pairs show every picture twice.
    if count > 2:
        assert set(Counter(path for pair in pairs[:count] for path in pair).values()) == {2}


@pytest.mark.parametrize("counts", [(0, 3), (1, 3), (3, 2), (4, 6), (4, 4)])
def test_pairs_of_two_kinds_are_all_there_once(counts: tuple[int, int]) -> None:
    cats, dogs = paths(counts[0]), paths(counts[1], "dog")
    pairs = list(pairs_between(cats, dogs, np.random.default_rng(0)))
    assert sorted(pairs) == [(cat, dog) for cat in cats for dog in dogs]
    # As many pairs as the larger kind has pictures show all of its, and the others in turn.
    first = Counter(path for pair in pairs[: max(counts)] for path in pair)
    assert len(first) == (sum(counts) if min(counts) else 0)


def test_groups_give_in_turn_and_the_others_more_where_one_ends() -> None:
    assert in_turn([iter("aaaa"), iter("b"), iter("cccc")], 6) == list("abcaca")
    assert in_turn([], 6) == []


def test_every_beginning_of_spread_lists_holds_its_share_of_each() -> None:
    assert spread("aaaaaa", "bb", "") == list("aabaaaba")


def test_kinds_give_as_many_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosegmentation, "_PAIRS", 7)
    root = write_kinds(tmp_path, Bus=4, Car=2, Table=5)
    task: Any = BENCHMARKS["cosegmentation"].task(root, None)
    assert Counter(pair.group for pair in task.pairs) == {"Bus": 3, "Car": 1, "Table": 3}


@pytest.mark.parametrize(
    ("name", "write"), [("animals", write_animals), ("cosegmentation", write_cosegmentation)]
)
def test_the_same_pairs_are_drawn_again_and_a_limit_takes_the_first(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = write(tmp_path)

    def drawn(limit: int | None) -> list[list[bytes]]:
        task: Any = BENCHMARKS[name].task(root, limit)
        return [[image.tobytes() for image in pair.images()] for pair in task.pairs]

    assert drawn(None) == drawn(None)
    assert drawn(2) == drawn(None)[:2]
