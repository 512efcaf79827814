"""A report page of a run: scores, curves, pairs and their ground truth, held-out matches."""

from dataclasses import asdict
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generators.sources.photos import persons
from pipelines.evaluate.job import HEADINGS, Rows
from pipelines.pages.gallery import pair_view
from pipelines.pages.look import read_samples
from pipelines.pages.render import render
from segswap.data.pair import Pair
from segswap.data.shards import read_pairs
from segswap.evaluation.known import KnownPair
from segswap.evaluation.stereo import stereo_pair
from segswap.files.images import encode_jpeg, read_image
from segswap.files.storage import write_atomically
from segswap.models.model import Model

_SHOWN = 6  # held-out pairs of which matches are shown


def write_report(
    folder: Path, dataset: Path, run: Path, models: dict[str, Model],
    scores: dict[str, Rows], commands: list[str],
) -> Path:  # fmt: skip
    """Write report.html and its pictures into a folder.

    Args:
        dataset: the pairs that were trained on and scored.
        run: the folder of the training run; its curves are shown.
        models: by what the page calls them; what each finds in the held-out pairs is shown.
        scores: by set of pairs ("pairs" and "stereo" are shown) and method.
        commands: the command lines that do the same by hand.

    Returns:
        The page's path.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    held_out = list(islice(read_pairs(dataset, "val"), _SHOWN))
    real = stereo_pair()
    found, stereo, kinds = {}, {}, {}
    for number, (name, model) in enumerate(models.items()):
        found[name] = [
            _save(
                pictures / f"match-{pair.index}-{number}.jpg",
                _picture(model, pair),
                f"held-out pair {pair.index}",
            )
            for pair in held_out
        ]
        picture = _picture(model, real, height=300)
        stereo[name] = [_save(pictures / f"stereo-{number}.jpg", picture, "the stereo pair")]
        if model.matcher.kinds:
            kinds[name] = [
                _save(pictures / f"kinds-{number}-{k}.jpg", picture, text)
                for k, (text, picture) in enumerate(_persons(model))
            ]
    write_atomically(pictures / "curves.png", (run / "curves.png").read_bytes())
    page = render(
        "report.html", scores=_table(scores["pairs"]), stereo_scores=_table(scores["stereo"]),
        found=found, stereo=stereo, kinds=kinds, curves="pictures/curves.png", commands=commands,
        pairs=[pair_view(pair, files) for files, pair in islice(read_samples(dataset, "train"), 6)],
    )  # fmt: skip
    write_atomically(folder / "report.html", page.encode())
    return folder / "report.html"


def _picture(model: Model, pair: Pair | KnownPair, height: int = 320) -> NDArray[np.uint8]:
    prediction = model.predict(pair.source, pair.target)
    return prediction.draw(pair.source, pair.target, height=height)


def _persons(model: Model) -> list[tuple[str, NDArray[np.uint8]]]:
    """What a model finds that pictures of three persons share, pair by pair, after their names."""
    images = [(path.stem.replace("_", " "), read_image(path)) for path in persons()]
    return [
        (f"{name} and {other}", model.predict(a, b).draw(a, b, height=320))
        for (name, a), (other, b) in combinations(images, 2)
    ]


def _save(path: Path, picture: NDArray[np.uint8], pair: str) -> tuple[str, str]:
    """Write a picture of a pair's matches; where it lies, from the page, and what it shows."""
    write_atomically(path, encode_jpeg(picture, 88))
    text = f"{pair}: both images, bright where the matcher takes them to be shared, points joined"
    return f"{path.parent.name}/{path.name}", text


def _table(rows: Rows) -> dict[str, Any]:
    """Titles of the scores that any method has, and by method each as text, whether the best."""
    flat = {name: asdict(scores) for name, scores in rows.items()}
    columns = [c for c in HEADINGS if not all(np.isnan(values[c]) for values in flat.values())]
    best = {
        column: (np.nanmin if column == "false_area" else np.nanmax)(
            [values[column] for values in flat.values()]
        )
        for column in columns
    }
    return {
        "titles": [HEADINGS[column] for column in columns],
        "methods": [
            (name, [(f"{values[c]:.3f}", values[c] == best[c]) for c in columns])
            for name, values in flat.items()
        ],
    }
