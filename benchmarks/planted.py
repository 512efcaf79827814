"""Search and discovery on a planted collection: details of paintings hidden in photographs.

    python benchmarks/planted.py make COLLECTION --motifs PAINTINGS --images PHOTOGRAPHS
    python benchmarks/planted.py make SMALL --motifs PAINTINGS --images PHOTOGRAPHS --side 0.1 0.25
    python benchmarks/planted.py retrieve COLLECTION --model segswap-tiny
    python benchmarks/planted.py discover COLLECTION --model segswap-tiny

make: of some paintings one detail each is blended into photographs, turned, scaled, some mirrored,
half of the results restyled as a whole; the other photographs hold none. truth.json says where.

retrieve: each detail is looked for, its painting being the query. mAP over the details, detection
AP (a hit counts where its box and the true one overlap by more than 0.3), recall of the first stage
at 20, beside SIFT with RANSAC and pooled features.

discover: what repeats in the collection, without a query: how many details have a group of their
own, how pure the groups are, and how many of the planted images they hold.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import measuring
import numpy as np
from numpy.typing import NDArray

from generators.composition.blending import feather, poisson
from generators.styles.style import adapt_fourier, adapt_pixels, match_histogram
from pipelines.search.index import build_index
from segswap import geometry
from segswap.discovery.discovery import Group, Member, discover
from segswap.discovery.pairing import Predict
from segswap.evaluation.baselines import sift
from segswap.evaluation.ranking import average_precision, detection_ap
from segswap.files.folders import image_files
from segswap.files.images import encode_jpeg, read_image
from segswap.models.hub import DEFAULT_MODEL
from segswap.models.model import Model, load
from segswap.models.prediction import Prediction
from segswap.search.baselines import PooledRetriever, SiftRetriever
from segswap.search.retrieval import ModelRetriever, Query, Retriever

Image = NDArray[np.uint8]
INLIERS = 10  # of SIFT's maps in discovery; with the usual 4 all images are like all others
SIDE = 640  # px, longer side of the collection's images
STYLES = (match_histogram, adapt_fourier, adapt_pixels)


def blob(rng: np.random.Generator, size: int = 256) -> NDArray[np.bool_]:
    """A roundish random region that nearly fills a square."""
    angles = np.linspace(0, 2 * np.pi, 73)[:-1]
    radius = np.full(72, 0.42)
    for wave in range(2, 6):
        radius += rng.normal(0, 0.03) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    radius = radius.clip(0.3, 0.49)
    points = 0.5 + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * size).astype(np.int32)], 1)
    return mask > 0


def detail_box(painting: Image, rng: np.random.Generator) -> list[int]:
    """The square with the most detail of twenty: left, top, right, bottom in pixels."""
    height, width = painting.shape[:2]
    grey = cv2.cvtColor(painting, cv2.COLOR_RGB2GRAY)
    edges = np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 2), cv2.CV_32F))
    boxes = []
    for _ in range(20):
        side = int(rng.uniform(0.35, 0.5) * min(height, width))
        left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        boxes.append([left, top, left + side, top + side])
    return max(boxes, key=lambda b: float(edges[b[1] : b[3], b[0] : b[2]].mean()))


def plant(
    photograph: Image, painting: Image, box: list[int], shape: NDArray[np.bool_],
    rng: np.random.Generator, mirrored: bool, sides: Sequence[float],
) -> tuple[Image, list[float]]:  # fmt: skip
    """The photograph with the detail, and its box there: left, top, right, bottom in pixels."""
    height, width = photograph.shape[:2]
    detail = painting[box[1] : box[3], box[0] : box[2]]
    side = rng.uniform(*sides) * min(height, width)
    x, y = rng.uniform(side / 2, width - side / 2), rng.uniform(side / 2, height - side / 2)
    matrix = (
        geometry.scaling(1 / width, 1 / height)
        @ geometry.translation(x, y)
        @ geometry.rotation(rng.uniform(-15, 15))
        @ geometry.scaling(-side if mirrored else side, side)
        @ geometry.translation(-0.5, -0.5)
    )
    pixels = geometry.warp(detail, matrix, width, height)
    mask = geometry.warp_labels(shape.astype(np.uint8), matrix, width, height) > 0
    blend = (poisson, feather)[rng.integers(2)]
    rows, columns = np.nonzero(mask)
    where = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return blend(photograph, pixels, mask), [float(value) for value in where]


def make(options: argparse.Namespace) -> None:
    """Write the collection and its truth."""
    rng = np.random.default_rng(options.seed)
    folder = Path(options.collection)
    folder.mkdir(parents=True)
    paintings = [Path(options.motifs) / name for name in image_files(options.motifs)]
    photographs = [Path(options.images) / name for name in image_files(options.images)]
    rng.shuffle(photographs)  # type: ignore[arg-type]
    rng.shuffle(paintings)  # type: ignore[arg-type]
    chosen = paintings[: options.details]
    boxes = [detail_box(read_image(path), rng) for path in chosen]
    shapes = [blob(rng) for _ in chosen]
    planted = []
    for number, path in enumerate(photographs[: options.size]):
        image = read_image(path)
        scale = SIDE / max(image.shape[:2])
        image = geometry.resize(image, *(round(n * scale) for n in image.shape[1::-1]))
        entry = {"image": f"{number:03d}.jpg", "motif": None}
        motif, copy = number % len(chosen), number // len(chosen)
        if copy < options.copies:
            mirrored = copy % 4 == 3
            image, where = plant(
                image,
                read_image(chosen[motif]),
                boxes[motif],
                shapes[motif],
                rng,
                mirrored,
                options.side,
            )
            entry |= {"motif": motif, "box": where, "mirrored": mirrored}
        entry["styled"] = bool(rng.random() < 0.5)
        if entry["styled"]:
            picture = read_image(paintings[rng.integers(len(paintings))])
            style = STYLES[rng.integers(len(STYLES))]
            image = np.rint(style(image, picture)).clip(0, 255).astype(np.uint8)
        (folder / entry["image"]).write_bytes(encode_jpeg(image, 92))
        planted.append(entry)
    truth = {
        "motifs": [
            {"image": str(p.resolve()), "box": b} for p, b in zip(chosen, boxes, strict=True)
        ],
        "images": planted,
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1))
    print(f"{folder}: {len(planted)} images, {len(chosen)} details of {options.copies} copies each")


def read_truth(collection: str) -> dict[str, Any]:
    """What `make` wrote."""
    return dict(json.loads((Path(collection) / "truth.json").read_text()))


def retrieve(options: argparse.Namespace) -> None:
    """Look every detail up by each method, and print a table."""
    truth = read_truth(options.collection)
    model = load(options.model, options.device)
    images = [str(Path(options.collection).resolve() / e["image"]) for e in truth["images"]]
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(images, options.model, Path(folder) / "index")
        found = ModelRetriever(model, index)
        methods: dict[str, Retriever] = {
            options.model: found,
            f"{options.model}, mirrored too": ModelRetriever(model, index, mirrored=True),
            "SIFT + RANSAC": SiftRetriever(index.images),
            "pooled features": PooledRetriever(found),
        }
        print(f"{len(images)} images, {len(truth['motifs'])} details")
        measuring.print_table(
            ["method", "mAP", "detection AP", "mAP, not mirrored", "s a query"],
            ([name, *looked_up(retriever, truth)] for name, retriever in methods.items()),
        )
        for name, listed in (
            ("pooled features", lambda query: found.similar(query, options.first)[0]),
            ("comparing cells", lambda query: found.shortlist(query, options.first)),
        ):
            shares = [share_listed(listed, truth, n) for n in range(len(truth["motifs"]))]
            print(f"among the first {options.first} by {name}: {np.mean(shares):.3f} of the copies "
                  "that are not mirrored")  # fmt: skip


def share_listed(listed: Callable[[Query], list[int]], truth: dict[str, Any], motif: int) -> float:
    """The share of a detail's upright copies that a shortlist has; the index is sorted by name."""
    query = truth["motifs"][motif]
    box = tuple(float(value) for value in query["box"])
    upright = {
        number
        for number, e in enumerate(truth["images"])
        if e["motif"] == motif and not e["mirrored"]
    }
    return len(upright.intersection(listed(Query(read_image(query["image"]), box)))) / len(upright)


def looked_up(retriever: Retriever, truth: dict[str, Any]) -> list[str]:
    """The means over all details of what `look_up` says of one, and the seconds that one takes."""
    count = len(truth["motifs"])
    seconds, rows = measuring.timed(lambda: [look_up(retriever, truth, n) for n in range(count)])
    return [*(f"{value:.3f}" for value in np.mean(rows, axis=0)), f"{seconds / count:.1f}"]


def look_up(retriever: Retriever, truth: dict[str, Any], motif: int) -> list[float]:
    """AP, detection AP, and AP without the mirrored copies, of one detail."""
    known = {e["image"]: e for e in truth["images"]}
    query = truth["motifs"][motif]
    box = tuple(float(value) for value in query["box"])
    hits = retriever.search(Query(read_image(query["image"]), box))
    entries = {hit.number: known[Path(hit.image).name] for hit in hits}
    boxes = {n: [tuple(e["box"])] for n, e in entries.items() if e["motif"] == motif}
    upright = {n for n in boxes if not entries[n]["mirrored"]}
    ranking = [hit.number for hit in hits]
    return [
        average_precision(ranking, boxes.keys()),
        detection_ap([(hit.number, hit.box) for hit in hits], boxes),
        average_precision([n for n in ranking if n not in boxes.keys() - upright], upright),
    ]


def discover_groups(options: argparse.Namespace) -> None:
    """Find what repeats by each method, and print a table."""
    truth = read_truth(options.collection)
    images = [str(Path(options.collection).resolve() / e["image"]) for e in truth["images"]]
    methods: dict[str, Model | Predict] = {
        options.model: load(options.model, options.device),
        f"SIFT + RANSAC, {INLIERS} inliers": partial(
            sift_pairs, [read_image(image) for image in images]
        ),
    }
    print(f"{len(images)} images, {len(truth['motifs'])} details")

    def row(name: str, method: Model | Predict) -> list[object]:
        seconds, groups = measuring.timed(lambda: discover(images, method).groups)
        found, purity, covered = judge(groups, truth)
        details = f"{found} of {len(truth['motifs'])}"
        return [name, len(groups), details, f"{purity:.3f}", f"{covered:.3f}", f"{seconds:.0f}"]

    measuring.print_table(
        ["method", "groups", "details found", "purity", "planted images found", "s"],
        (row(name, method) for name, method in methods.items()),
    )


def sift_pairs(
    images: list[Image], pairs: Sequence[tuple[int, int]], flipped: bool
) -> list[Prediction]:
    """SIFT's predictions for pairs of images, the targets flipped left to right or not."""
    step = -1 if flipped else 1
    return [sift(images[s], np.ascontiguousarray(images[t][:, ::step]), INLIERS) for s, t in pairs]


def judge(groups: Sequence[Group], truth: dict[str, Any]) -> tuple[int, float, float]:
    """How many details have a group of their own, the mean purity of the groups, and the share of
    the planted images that are in their detail's group.

    A member shows a detail where most of its region lies in the detail's box there. A group is of
    the detail that most of its members show, and that share is its purity.
    """
    planted = sum(e["motif"] is not None for e in truth["images"])
    purities, covered = [], set()
    for group in groups:
        shown = Counter(shown_by(member, truth["images"][member.image]) for member in group.members)
        motif, count = shown.most_common(1)[0]
        purities.append(count / len(group.members) if motif is not None else 0.0)
        if motif is not None:
            covered |= {
                (motif, member.image)
                for member in group.members
                if shown_by(member, truth["images"][member.image]) == motif
            }
    found = {motif for motif, _ in covered}
    return len(found), float(np.mean(purities)) if purities else 0.0, len(covered) / planted


def shown_by(member: Member, entry: dict[str, Any]) -> int | None:
    """The detail that a member of a group shows, if any."""
    if entry["motif"] is None or not member.mask.any():
        return None
    left, top, right, bottom = (round(value) for value in entry["box"])
    inside = member.mask[top:bottom, left:right].sum() / member.mask.sum()
    return entry["motif"] if inside > 0.5 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = parser.add_subparsers(required=True)
    making = jobs.add_parser("make")
    making.set_defaults(job=make)
    making.add_argument("--motifs", required=True)
    making.add_argument("--images", required=True)
    making.add_argument("--details", type=int, default=5)
    making.add_argument("--copies", type=int, default=8)
    making.add_argument("--size", type=int, default=60, help="images of the collection")
    making.add_argument("--seed", type=int, default=0)
    making.add_argument(
        "--side", type=float, nargs=2, default=(0.25, 0.55), metavar=("LEAST", "MOST"),
        help="of the details, as a share of the photograph's shorter side",
    )  # fmt: skip
    for name, job in (("retrieve", retrieve), ("discover", discover_groups)):
        using = jobs.add_parser(name)
        using.set_defaults(job=job)
        using.add_argument("--model", default=DEFAULT_MODEL)
        using.add_argument("--device", default="cpu")
        using.add_argument("--first", type=int, default=20, help="images of a shortlist")
    for command in jobs.choices.values():
        command.add_argument("collection")
    options = parser.parse_args()
    options.job(options)


if __name__ == "__main__":
    main()
