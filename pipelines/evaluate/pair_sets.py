"""What segswap-eval scores on: sets of pairs of images, each with what a prediction is worth."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segswap.data.manifest import MANIFEST, split_shards
from segswap.data.pair import Pair, share_nothing
from segswap.data.shards import read_pairs
from segswap.evaluation.known import KnownPair, score_known
from segswap.evaluation.metrics import Scores, score_negative, score_pair
from segswap.evaluation.planar import planar_pairs, planar_sequences
from segswap.evaluation.stereo import stereo_pair
from segswap.evaluation.tss import tss_groups, tss_pairs
from segswap.files.hashes import file_hash
from segswap.files.storage import join
from segswap.models.prediction import Prediction

Image = NDArray[np.uint8]
_KEPT = 16  # pairs in memory among which a pair finds one that it shares nothing with


@dataclass(frozen=True)
class Task:
    """Two images to match.

    Attributes:
        name: of the task within its set, and of the file of its prediction.
        source, target: uint8 (H, W, 3).
        score: what a prediction for them is worth.
    """

    name: str
    source: Image
    target: Image
    score: Callable[[Prediction], Scores]


@dataclass(frozen=True)
class PairSet:
    """Tasks that are scored together, in one table.

    Attributes:
        name: of its section and of its folder of predictions.
        title: what the section says of it.
        count: how many tasks there are at most.
        identity: what predictions for it depend on, beside the method.
        masks: whether masks are scored, not positions alone.
        tasks: a new iterator over the tasks, always the same ones.
    """

    name: str
    title: str
    count: int
    identity: dict[str, Any]
    masks: bool
    tasks: Callable[[], Iterator[Task]]


def dataset_set(dataset: str, split: str, styled: bool, limit: int | None) -> PairSet:
    """A split of a dataset: every pair, and its source with the target of the next pair that shows
    none of the same images, if there is one near.

    Args:
        dataset: its folder or URL.
        styled: match the styled versions of both images.
        limit: take the first pairs of the split only.

    Raises:
        DatasetError: the dataset cannot be used, or has no such split.
    """
    listed = sum(entry["pairs"] for entry in split_shards(dataset, split))
    pairs = min(listed, limit or listed)
    identity = {
        "dataset": file_hash(join(dataset, MANIFEST)), "split": split, "styled": styled,
        "limit": limit,
    }  # fmt: skip

    def tasks() -> Iterator[Task]:
        first: list[Pair] = []
        waiting: list[Pair] = []  # for a target that shares nothing with their source
        for pair in islice(read_pairs(dataset, split), pairs):
            source, target = _images(pair, styled)
            yield Task(f"{pair.index:09d}", source, target, partial(score_pair, pair=pair))
            for earlier in [each for each in waiting if share_nothing(each, pair)]:
                yield _negative(earlier, pair, styled)
                waiting.remove(earlier)
            waiting = [*waiting, pair][-_KEPT:]
            first = [*first, pair][:_KEPT]
        for last in waiting:
            for pair in [each for each in first if share_nothing(last, each)][:1]:
                yield _negative(last, pair, styled)

    title = f"{dataset}, {'styled ' * styled}{split}, {pairs} pair{'s' * (pairs != 1)}"
    return PairSet("pairs", title, 2 * pairs if pairs > 1 else 1, identity, True, tasks)


def _negative(pair: Pair, other: Pair, styled: bool) -> Task:
    source, target = _images(pair, styled)[0], _images(other, styled)[1]
    return Task(f"{pair.index:09d}.negative", source, target, score_negative)


def _images(pair: Pair, styled: bool) -> tuple[Image, Image]:
    if not styled:
        return pair.source, pair.target
    if pair.source_styled is None or pair.target_styled is None:
        raise ValueError(f"pair {pair.index} has no styled images; leave out --styled")
    return pair.source_styled, pair.target_styled


def real_sets(homographies: str | None, tss: str | None) -> list[PairSet]:
    """The sets of real pairs: the built-in stereo pair, then those of the folders that are given.

    Args:
        homographies: a planar sequence, or a folder of some; see `segswap.evaluation.planar`.
        tss: TSS, or a part of it; see `segswap.evaluation.tss`. Each of its groups is a set.

    Raises:
        ValueError: a folder holds no such thing, or a file in it cannot be used.
    """
    sets = []
    if find_spec("skimage") is not None:  # the pair is a part of it
        sets.append(_known_set("stereo", "stereo_motorcycle", lambda: iter([stereo_pair()])))
    if homographies is not None:
        sequences = planar_sequences(Path(homographies))

        def planar() -> Iterator[KnownPair]:
            return (pair for sequence in sequences for pair in planar_pairs(sequence))

        sets.append(_known_set("homographies", f"homographies of {homographies}", planar))
    for group, folders in tss_groups(Path(tss)).items() if tss is not None else ():
        sets.append(_known_set(f"tss-{group}", f"TSS, {group}", partial(tss_pairs, folders)))
    return sets


def _known_set(name: str, title: str, pairs: Callable[[], Iterator[KnownPair]]) -> PairSet:
    count, masks, digest = 0, False, hashlib.sha256()
    for pair in pairs():
        count += 1
        masks |= pair.source_mask is not None
        for image in (pair.source, pair.target):
            digest.update(f"{pair.name} {image.shape} ".encode() + image.tobytes())

    def tasks() -> Iterator[Task]:
        for pair in pairs():
            yield Task(pair.name, pair.source, pair.target, partial(score_known, pair=pair))

    many = f"{title}, {count} pair{'s' * (count != 1)}"
    return PairSet(name, many, count, {"images": digest.hexdigest()}, masks, tasks)
