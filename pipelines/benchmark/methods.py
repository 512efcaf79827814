"""The methods that a benchmark is run with, by what it asks of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.benchmark.base import Task
from pipelines.benchmark.sets.discovery import Discovery, Mask
from pipelines.benchmark.sets.pairs import Pairs
from pipelines.benchmark.sets.retrieval import Retrieval, Search
from pipelines.command.progress import Progress
from pipelines.evaluate.predictions import (
    Method,
    NamedModel,
    Predict,
    ellipse_names,
    file_name,
    pair_methods,
)
from pipelines.search.index import build_index
from segswap.discovery.discovery import discover
from segswap.discovery.settings import Settings, same_for
from segswap.evaluation.baselines import ellipse_mask
from segswap.files.images import read_image, read_size
from segswap.files.storage import name_bytes
from segswap.models.model import Model
from segswap.models.prediction import Prediction
from segswap.search.baselines import PooledRetriever, SiftRetriever
from segswap.search.retrieval import ModelRetriever, Retriever


@dataclass(frozen=True)
class Contestants:
    """Models and baselines, as the methods of any benchmark.

    Attributes:
        models: loaded.
        baselines: among sift, pooled, features, ellipse.
        device: that indexes are made on.
        folder: for the indexes.
        confidence: that a match must have in discovery; see `segswap.discovery.settings.Settings`.
    """

    models: Sequence[NamedModel]
    baselines: Sequence[str]
    device: str
    folder: Path
    confidence: float | None = None
    _opened: dict[Path, ModelRetriever] = field(default_factory=dict, init=False)

    def methods(self, task: Task) -> dict[str, Method[Any]]:
        """The methods that can do what a benchmark asks, by their names in the tables."""
        if isinstance(task, Retrieval):
            return self._retrieval(task)
        if isinstance(task, Discovery):
            return self._discovery()
        masks = isinstance(task, Pairs) and task.masks
        return dict(pair_methods(self.models, self.baselines, masks))

    def _retrieval(self, task: Retrieval) -> dict[str, Method[Any]]:
        methods = {}
        for named in self.models:
            matched, pooled = partial(self._indexed, named), partial(self._pooled, named)
            methods[named.title] = Method(Search(matched, pooled), named.identity)
            if "pooled" in self.baselines:
                methods[f"pooled features of {named.label}"] = Method(
                    Search(pooled, pooled), f"pooled {named.identity}"
                )
        if "sift" in self.baselines:
            first, identity = None, "sift"
            if task.in_two_stages and self.models:
                first = partial(self._pooled, self.models[0])
                identity += f" after pooled {self.models[0].identity}"
            methods["sift+ransac"] = Method(Search(SiftRetriever, first), identity)
        return methods

    def _indexed(self, named: NamedModel, images: Sequence[str]) -> ModelRetriever:
        """A model's retriever of a collection."""
        content = hashlib.sha256(name_bytes("\n".join(images))).hexdigest()[:12]
        place = self.folder / f"index-{file_name(named.label)}-{content}"
        if place not in self._opened:
            index = build_index(images, named.where, place, device=self.device)
            self._opened.clear()  # of collections that are done with
            self._opened[place] = ModelRetriever(named.model, index)
        return self._opened[place]

    def _pooled(self, named: NamedModel, images: Sequence[str]) -> Retriever:
        return PooledRetriever(self._indexed(named, images))

    def _discovery(self) -> dict[str, Method[Any]]:
        ways: dict[str, tuple[Model | Predict, str]] = {
            name: (pairs.way, pairs.identity)
            for name, pairs in pair_methods(self.models, self.baselines, masks=False).items()
        }
        ways |= {named.title: (named.model, named.identity) for named in self.models}
        methods: dict[str, Method[Any]] = {
            name: Method(
                partial(discover_masks, way, confidence=self.confidence),
                f"{identity}, confidence {self.confidence}",
            )
            for name, (way, identity) in ways.items()
        }
        if "ellipse" in self.baselines:
            for share, name in ellipse_names().items():
                methods[name] = Method(partial(_ellipses, share), name)
        return methods


def _ellipses(share: float, images: Sequence[str], sigma: float | None) -> list[Mask | None]:
    return [ellipse_mask(*read_size(image), share) for image in images]


def discover_masks(
    matcher: Model | Predict,
    images: Sequence[str],
    sigma: float | None,
    confidence: float | None = None,
) -> Sequence[Mask | None]:
    """What repeats in a collection, as masks of its images.

    Raises:
        ValueError: an image cannot be read.
    """
    same = same_for(matcher, None) if isinstance(matcher, Model) else "thing"
    settings = Settings.of(same, confidence, sigma)
    read = lru_cache(maxsize=128)(read_image)
    model = matcher if isinstance(matcher, Model) else partial(_predict, matcher, read, images)
    progress: Progress | None = None

    def advance(count: int, total: int) -> None:
        nonlocal progress
        progress = progress or Progress("matching", total, "pairs")
        progress.add(count)

    found = discover(images, model, settings=settings, advance=advance)
    if progress is not None:
        progress.close()
    if found.skipped:
        image, reason = found.skipped[0]
        raise ValueError(f"{len(found.skipped)} images cannot be read; {image}: {reason}")
    return found.masks


def _predict(
    predict: Predict, read: Callable[[str], NDArray[np.uint8]], images: Sequence[str],
    pairs: Sequence[tuple[int, int]], flipped: bool,
) -> list[Prediction]:  # fmt: skip
    """A method's predictions for pairs of images, the targets flipped left to right or not."""
    step = -1 if flipped else 1
    return [
        predict(read(images[source]), np.ascontiguousarray(read(images[target])[:, ::step]))
        for source, target in pairs
    ]
