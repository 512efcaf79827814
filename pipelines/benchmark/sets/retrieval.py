"""Benchmarks of queries for which a collection's images are ranked."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Advance, Scores
from pipelines.evaluate.predictions import damage_says
from segswap.files.images import read_image
from segswap.geometry import Box
from segswap.search.retrieval import Hit, Query, Retriever

MakeRetriever = Callable[[Sequence[str]], Retriever]  # from the paths of a collection


@dataclass(frozen=True)
class QueryTask:
    """One query.

    Attributes:
        image: the query's path.
        box: the detail in it, clipped to the image; None for the whole image.
        category: whose queries are put together first.
        truth: by number in the collection, the relevant images with the boxes to find in them;
            none where no box is known.
        own: the query's number in the collection; None where it is not in it.
        among: numbers of the images to rank, a shortlist; None for the whole collection.
    """

    image: Path
    box: Box | None = None
    category: str = ""
    truth: Mapping[int, Sequence[Box]] = field(default_factory=dict)
    own: int | None = None
    among: Sequence[int] | None = None


@dataclass(frozen=True)
class Ranking:
    """The answer to a query, in the form in which it is kept.

    Attributes:
        numbers: int64 (K,), images of the collection, best first.
        scores: float64 (K,).
        boxes: float64 (K, 4), found regions in pixels; NaN where there is none.
        masks: float32 (h, w) by rank, where they were found and are asked for.
    """

    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    masks: dict[int, NDArray[np.float32]]

    @property
    def detections(self) -> list[tuple[int, Box | None]]:
        """Each image with its box."""
        return [
            (int(number), None if np.isnan(box).any() else (box[0], box[1], box[2], box[3]))
            for number, box in zip(self.numbers, self.boxes.tolist(), strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write as an .npz file."""
        masks: dict[str, Any] = {f"mask{rank}": mask for rank, mask in self.masks.items()}
        np.savez_compressed(
            path, numbers=self.numbers, scores=self.scores, boxes=self.boxes, **masks
        )

    @classmethod
    def load(cls, path: Path) -> "Ranking":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                masks = {int(name[4:]): arrays[name] for name in arrays if name.startswith("mask")}
                read = cls(arrays["numbers"], arrays["scores"], arrays["boxes"], masks)
            if not len(read.numbers) == len(read.scores) == len(read.boxes):
                raise ValueError("its arrays differ in length")
        except Exception as error:  # unzipping and parsing raise many kinds
            raise ValueError(f"{path} cannot be read as a ranking: {error}") from error
        return read


@dataclass(frozen=True)
class Retrieval:
    """Queries that are scored together; see `base.Task`.

    Attributes:
        images: the collection.
        queries: in order.
        identity: what predictions depend on, beside the method.
        summary: the benchmark's scores from the rankings, in the order of the queries.
        masks: keep the found masks too.
        shortlist: where a query has no shortlist, rank only so many images: the first ones of
            another method, `first_stage`; 0 for all.
    """

    images: Sequence[Path]
    queries: Sequence[QueryTask]
    identity: dict[str, Any]
    summary: Callable[[Sequence[Ranking]], Scores]
    masks: bool = False
    shortlist: int = 0
    unit: str = "queries"

    @property
    def count(self) -> int:
        """How many queries there are."""
        return len(self.queries)

    def export(self, way: "Search", folder: Path, advance: Advance) -> None:
        """See `base.Task.export`."""
        used = self._used()
        names = [os.path.abspath(self.images[number]) for number in used]
        retriever = way.retriever(names)
        own = _numbers(retriever, names, used)
        its = {number: place for place, number in enumerate(own)}
        first = self._first_stage(way, names, used) if self.in_two_stages else None
        for number, task in enumerate(self.queries):
            query = _query(task)
            among = first(query) if first is not None else task.among
            hits = retriever.search(query, None if among is None else [its[n] for n in among])
            self._ranking(hits, own).save(folder / f"{number:06d}.npz")
            advance(1)

    def score(self, folder: Path) -> Scores:
        """See `base.Task.score`."""
        with damage_says(folder):
            paths = (folder / f"{number:06d}.npz" for number in range(self.count))
            rankings = [Ranking.load(path) for path in paths]
        return self.summary(rankings)

    @property
    def in_two_stages(self) -> bool:
        """Whether a first stage has to say which images of a large collection are ranked."""
        return 0 < self.shortlist < len(self.images) and not self._listed

    @property
    def _listed(self) -> bool:
        """Whether every query has a shortlist."""
        return all(query.among is not None for query in self.queries)

    def _used(self) -> list[int]:
        """Numbers of the images that some query looks at, sorted."""
        if not self._listed:
            return list(range(len(self.images)))
        return sorted({number for query in self.queries for number in query.among or ()})

    def _first_stage(
        self, way: "Search", names: Sequence[str], used: Sequence[int]
    ) -> Callable[[Query], list[int]]:
        if way.first_stage is None:
            raise ValueError("there are no shortlists; give them, or a --model that makes them")
        retriever = way.first_stage(names)
        own = _numbers(retriever, names, used)
        return lambda query: [own[hit.number] for hit in retriever.search(query)[: self.shortlist]]

    def _ranking(self, hits: Sequence[Hit], own: Sequence[int]) -> Ranking:
        nowhere = (np.nan,) * 4
        masks = {rank: hit.mask for rank, hit in enumerate(hits) if hit.mask is not None}
        return Ranking(
            np.array([own[hit.number] for hit in hits], np.int64),
            np.array([hit.score for hit in hits], np.float64),
            np.array([hit.box or nowhere for hit in hits], np.float64).reshape(-1, 4),
            masks if self.masks else {},
        )


@dataclass(frozen=True)
class Search:
    """A method's way to search.

    Attributes:
        retriever: ranks a collection.
        first_stage: ranks one too large to be matched as a whole, quickly; None where there is no
            model to do it with.
    """

    retriever: MakeRetriever
    first_stage: MakeRetriever | None


def _numbers(retriever: Retriever, names: Sequence[str], used: Sequence[int]) -> list[int]:
    """By a retriever's number of an image, the benchmark's.

    Raises:
        ValueError: the retriever could not read an image.
    """
    own = dict(zip(names, used, strict=True))
    theirs = [os.path.abspath(image) for image in retriever.images]
    if lost := own.keys() - set(theirs):
        raise ValueError(
            f"{len(lost)} of {len(names)} images of the benchmark cannot be read; the first is "
            f"{min(lost)}"
        )
    return [own[image] for image in theirs]


def _query(task: QueryTask) -> Query:
    image = read_image(task.image)
    if task.box is None:
        return Query(image)
    height, width = image.shape[:2]
    left, top, right, bottom = task.box
    return Query(image, (max(left, 0), max(top, 0), min(right, width), min(bottom, height)))
