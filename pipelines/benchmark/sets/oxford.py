"""Planar scenes with known homographies: Oxford, HPatches (see `segswap.evaluation.planar`)."""

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Benchmark, Scores, fingerprint
from pipelines.benchmark.sets.pairs import Pairs, PairTask
from segswap.evaluation.known import KnownPair, score_known
from segswap.evaluation.planar import planar_pairs, planar_sequences
from segswap.models.prediction import Prediction


def _open(root: Path, limit: int | None) -> Pairs:
    pairs: list[PairTask] = []
    files: list[Path] = []
    for sequence in planar_sequences(root):
        if limit is not None and len(pairs) >= limit:
            break
        files += sorted(path for path in sequence.iterdir() if path.is_file())
        pairs += [
            PairTask(
                f"{len(pairs) + number:04d}", sequence.name, partial(_images, sequence, number),
                partial(_score, sequence=sequence, number=number),
            )
            for number in range(len(_sequence(sequence)))
        ]  # fmt: skip
    return Pairs(pairs[:limit], {"files": fingerprint(root, files), "limit": limit})


@lru_cache(maxsize=1)
def _sequence(folder: Path) -> tuple[KnownPair, ...]:
    """The pairs of a sequence; the last one read stays in memory."""
    return tuple(planar_pairs(folder))


def _images(sequence: Path, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pair = _sequence(sequence)[number]
    return pair.source, pair.target


def _score(prediction: Prediction, sequence: Path, number: int) -> Scores:
    scores = score_known(prediction, _sequence(sequence)[number])
    return {"PCK@1%": scores.pck_1, "PCK@3%": scores.pck_3, "PCK@5%": scores.pck_5}


OXFORD = Benchmark(
    "oxford", "planar scenes, Oxford or HPatches", ("oxford", "oxford_graf", "hpatches"),
    "img1.png, img2.png, ... and H1to2p, ..., or subfolders with them (HPatches: 1.ppm, H_1_2)",
    _open,
)  # fmt: skip
