"""Place recognition: Tokyo 24/7 and Pittsburgh 30k, shortlists of images ranked again.

Torii et al., "24/7 place recognition by view synthesis" (CVPR 2015) and "Visual Place Recognition
with Repetitive Structures" (CVPR 2013), in the form of NetVLAD (Arandjelovic et al., CVPR 2016): a
MATLAB file whose `dbStruct` has dbImage, utmDb, qImage, utmQ (names; 2 x N positions in metres).
Images are matched at the model's own size; published scores are of 640 x 480 px.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint
from pipelines.benchmark.sets.retrieval import QueryTask, Ranking, Retrieval
from segswap.evaluation.ranking import one_per_place, recall_at
from segswap.files.hashes import file_hash

_RERANKED = 100  # images of a query's shortlist
_VIEWS = 12  # images of a place of Tokyo 24/7
Array = NDArray[np.float64]


def _tokyo(root: Path, limit: int | None) -> Retrieval:
    table = _Table(root, "tokyo247.mat", root / "database", root / "query" / "247query_subset_v2")
    whole = len(table.at) // _VIEWS * _VIEWS
    views = table.at[:whole].reshape(-1, _VIEWS, 2)
    if whole != len(table.at) or (views != views[:, :1]).any():
        raise ValueError(f"tokyo247.mat does not list {_VIEWS} images of each place in a row")
    places = np.arange(len(table.at)) // _VIEWS
    return table.retrieval(root, limit, lambda ranking: one_per_place(ranking, places))


def _pitts(root: Path, limit: int | None) -> Retrieval:
    return _Table(root, "pitts30k_test.mat", root, root / "queries_real").retrieval(
        root, limit, list
    )


class _Table:
    """Queries and database with their positions, and shortlists where there are some.

    Attributes:
        file: the MATLAB file.
        images, queries: paths.
        at, queries_at: (N, 2) and (Q, 2) positions in metres.
        shortlists: by query, numbers of images, best first; None where there is no file of them.
    """

    def __init__(self, root: Path, name: str, database: Path, queries: Path) -> None:
        self.file = existing(root / name)
        try:
            # Arrays and names alone: MATLAB files of this kind hold no code.
            fields = loadmat(self.file, squeeze_me=True, struct_as_record=False)["dbStruct"]
            self.images = [_image(database, name) for name in _names(fields.dbImage)]
            self.queries = [_image(queries, name) for name in _names(fields.qImage)]
            self.at, self.queries_at = _positions(fields.utmDb), _positions(fields.utmQ)
        except Exception as error:  # parsing raises many kinds
            raise ValueError(f"{self.file} cannot be read as a dbStruct: {error}") from error
        counts = [len(self.images), len(self.at)], [len(self.queries), len(self.queries_at)]
        if counts[0][0] != counts[0][1] or counts[1][0] != counts[1][1]:
            raise ValueError(f"{self.file} has other numbers of images than of positions: {counts}")
        self.shortlists = _shortlists(root, self.queries, self.images)

    def retrieval(
        self, root: Path, limit: int | None, tidied: Callable[[Sequence[int]], list[int]]
    ) -> Retrieval:
        """The benchmark, its rankings tidied before the recall is taken."""
        queries = [
            QueryTask(path, among=self.shortlists[number] if self.shortlists else None)
            for number, path in enumerate(self.queries[:limit])
        ]
        identity = {
            "positions": file_hash(self.file), "limit": limit,
            "shortlists": hashlib.sha256(repr(self.shortlists).encode()).hexdigest(),
            "images": fingerprint(root, (*self.images, *self.queries[:limit])),
        }  # fmt: skip
        summary = partial(_recalls, tidied, self.queries_at[:limit], self.at)
        return Retrieval(self.images, queries, identity, summary, shortlist=_RERANKED)


def _recalls(
    tidied: Callable[[Sequence[int]], list[int]], queries: Array, database: Array,
    rankings: Sequence[Ranking],
) -> Scores:  # fmt: skip
    tidy = [tidied(ranking.numbers.tolist()) for ranking in rankings]
    return {f"R@{k}": share for k, share in recall_at(tidy, queries, database).items()}


def _names(values: Any) -> list[str]:
    return [str(value) for value in np.atleast_1d(values)]


def _positions(values: Any) -> Array:
    at = np.asarray(values, np.float64).reshape(2, -1).T
    if not np.isfinite(at).all():
        raise ValueError("a position is no number")
    return at


def _image(folder: Path, name: str) -> Path:
    """An image by its listed name; Tokyo's list says .jpg where the files are .png."""
    path = folder / name
    return path if path.exists() else path.with_suffix(".png")


def _shortlists(
    root: Path, queries: Sequence[Path], images: Sequence[Path]
) -> list[Sequence[int]] | None:
    """The best images of each query by a global descriptor, from one of the files.

    Raises:
        ValueError: the file is damaged, or not of this database.
    """
    for name in ("shortlists.npy", "top100_patchVlad.npy"):
        if (root / name).exists():
            return _from_array(root / name, len(queries), len(images))
    path = root / "shortlists.txt"
    return _from_text(path, len(queries), images) if path.exists() else None


def _from_array(path: Path, queries: int, images: int) -> list[Sequence[int]]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if values.ndim == 2 and values.dtype.kind == "f" and values.shape == (queries, images):
        values = np.argsort(-values, axis=1, kind="stable")
    fits = values.ndim == 2 and values.dtype.kind in "iu" and len(values) == queries
    if not fits or not values.size or values.min() < 0 or values.max() >= images:
        raise ValueError(
            f"{path} holds {values.dtype} {values.shape}; expected whole numbers of images from 0 "
            f"to {images - 1}, best first, or scores, a row for each of {queries} queries"
        )
    return [row.tolist() for row in values[:, :_RERANKED]]


def _from_text(path: Path, queries: int, images: Sequence[Path]) -> list[Sequence[int]]:
    numbers = {image.stem: number for number, image in enumerate(images)}
    lines = path.read_text("utf-8").splitlines()
    if len(lines) != queries:
        raise ValueError(
            f"{path} has {len(lines)} lines; expected one for each of {queries} queries"
        )
    try:
        return [[numbers[Path(name).stem] for name in line.split()[:_RERANKED]] for line in lines]
    except KeyError as error:
        raise ValueError(f"{path} names {error}, which is not in the database") from error


_LISTS = (
    "; with shortlists.npy (a row for each query: numbers of its 100 best images, or scores of "
    "all), top100_patchVlad.npy, or shortlists.txt (a line for each query: their names), those are "
    "ranked, else the 100 with the most similar pooled features"
)
TOKYO = Benchmark(
    "tokyo247", "place recognition, Tokyo 24/7", ("tokyo247", "Tokyo247"),
    "tokyo247.mat, database/03814/... and query/247query_subset_v2/" + _LISTS,
    _tokyo,
)  # fmt: skip
PITTS = Benchmark(
    "pitts30k", "place recognition, Pittsburgh 30k, test", ("pitts30k", "Pitts"),
    "pitts30k_test.mat, 000/, 001/, ... and queries_real/" + _LISTS,
    _pitts,
)  # fmt: skip
