"""Details in artworks: the Brueghel set with the annotations of ArtMiner.

Shen, Efros, Aubry, "Discovering Visual Patterns in Art Collections with Spatially-Consistent
Feature Learning" (CVPR 2019). The annotations are a JSON object, by category lists of queries:
`{"query": [IMAGE, [x0, y0, x1, y1]], "gt": [[IMAGE, [x0, y0, x1, y1]], ...]}`, boxes in pixels.
Images are matched at the model's own size; published scores are of 640 px, details of 64.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.benchmark.base import Benchmark, Scores, existing, fingerprint, images_of
from pipelines.benchmark.sets.retrieval import QueryTask, Ranking, Retrieval
from segswap.evaluation.ranking import average_precision, detection_ap, mean_by_category
from segswap.files.hashes import file_hash
from segswap.geometry import Box


def _open(root: Path, limit: int | None) -> Retrieval:
    labels = existing(root / "brueghelTest.json")
    images = images_of(root / "Image")
    numbers = {path.name: number for number, path in enumerate(images)}
    queries = [
        _query(images, numbers, category, entry, labels)
        for category, entries in _annotations(labels).items() for entry in entries
    ][:limit]  # fmt: skip
    identity = {
        "images": fingerprint(root, images), "annotations": file_hash(labels), "limit": limit
    }  # fmt: skip
    return Retrieval(images, queries, identity, partial(scores_of, queries))


def scores_of(queries: Sequence[QueryTask], rankings: Sequence[Ranking]) -> Scores:
    """mAP of the images and of the boxes: means of queries by category, then over categories."""
    categories = [query.category for query in queries]
    found = [
        average_precision(ranking.numbers.tolist(), query.truth, query.own)
        for query, ranking in zip(queries, rankings, strict=True)
    ]
    detected = [
        detection_ap(ranking.detections, query.truth, query.own)
        for query, ranking in zip(queries, rankings, strict=True)
    ]
    return {
        "mAP": mean_by_category(found, categories),
        "detection mAP": mean_by_category(detected, categories),
    }


def _annotations(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise ValueError(f"{path} holds no lists of queries by category")
    return content


def _query(
    images: Sequence[Path], numbers: dict[str, int], category: str, entry: Any, labels: Path
) -> QueryTask:
    try:
        name, box = entry["query"]
        truth: dict[int, list[Box]] = {}
        for image, true in entry["gt"]:
            truth.setdefault(numbers[image], []).append(_box(true))
        return QueryTask(images[numbers[name]], _box(box), category, truth, numbers[name])
    except KeyError as error:
        raise ValueError(f"{labels} names {error}, which is not in Image") from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{labels}: a query of category {category} is damaged ({error})"
        ) from error


def _box(values: Any) -> Box:
    left, top, right, bottom = (float(value) for value in values)
    if not (left < right and top < bottom):
        raise ValueError(f"the box {values} is empty")
    return left, top, right, bottom


BRUEGHEL = Benchmark(
    "brueghel", "one-shot retrieval of details in artworks", ("brueghel", "Brueghel"),
    "Image/ with the 1587 artworks, and brueghelTest.json",
    _open,
)  # fmt: skip
