"""segswap-eval: score a model and baselines on a split; predictions first, scores second."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from pipelines import cli
from pipelines.progress import Progress
from segswap.baselines import sift
from segswap.metrics import Scores, mean_scores, score_negative, score_pair
from segswap.model import SETTINGS, WEIGHTS, load
from segswap.pair import Pair
from segswap.prediction import Prediction
from segswap.shards import MANIFEST, datasets_with, file_hash, read_pairs
from segswap.stereo import StereoScores, score_stereo
from segswap.storage import write_atomically

Method = Callable[[NDArray[np.uint8], NDArray[np.uint8]], Prediction]
KEY = "predictions.json"


@dataclass(frozen=True)
class EvalConfig:
    """Score a model, and a baseline beside it, on pairs with ground truth.

    Every pair is also matched with the next pair's target, with which it shares nothing; what is
    found there is the false-positive area. The last columns are a real stereo pair.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PAIRS")]
    """A dataset that segswap-generate made."""
    split: Literal["train", "val"] = "val"
    """The split to score on."""
    model: str | None = None
    """Folder of a run of segswap-train."""
    baseline: Literal["none", "sift"] = "none"
    """A method to score beside the model: SIFT, ratio test, affine RANSAC."""
    styled: bool = False
    """Match the styled versions of both images instead of the plain ones."""
    limit: int | None = None
    """Score on the first pairs of the split only."""
    json: str | None = None
    """Write the scores to this file too."""
    predictions: str | None = None
    """Folder that keeps the predictions; complete ones of the same methods and pairs are reused."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if self.model is None and self.baseline == "none":
            raise ValueError("nothing to score: give --model, --baseline, or both")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; expected at least 1")


def main() -> None:
    """Entry point of segswap-eval."""
    cli.run(EvalConfig, evaluate)


def evaluate(config: EvalConfig) -> int:
    """Score every method, print the table, and write the JSON file if one is asked for.

    Raises:
        ValueError: the dataset, the model or the predictions' folder cannot be used.
    """
    rows = score_methods(config)
    print(table(rows))
    if config.json:
        content = {
            "dataset": config.data, "split": config.split, "styled": config.styled,
            "pairs": sum(1 for _ in _pairs(config)),
            "scores": {n: {**asdict(s), "stereo": asdict(r)} for n, (s, r) in rows.items()},
        }  # fmt: skip
        write_atomically(Path(config.json), json.dumps(_finite(content), indent=1).encode())
    return 0


def score_methods(config: EvalConfig) -> dict[str, tuple[Scores, StereoScores]]:
    """Scores of every method of a config on its pairs and on the stereo pair."""
    datasets_with([config.data], config.split)
    methods = _methods(config)
    keep = (
        nullcontext(config.predictions)
        if config.predictions
        else tempfile.TemporaryDirectory(prefix="segswap-")
    )
    rows = {}
    with keep as folder:
        for name, (method, identity) in methods.items():
            place = Path(folder) / name
            _export(config, name, method, identity, place)
            rows[name] = (score(config, place), score_stereo(method)[0])
    return rows


def _methods(config: EvalConfig) -> dict[str, tuple[Method, str]]:
    """Every method by its name in the table, with what identifies it."""
    methods: dict[str, tuple[Method, str]] = {}
    if config.model:
        model = load(config.model, config.device)
        identity = " ".join(file_hash(Path(config.model) / name) for name in (WEIGHTS, SETTINGS))
        methods[model.settings["matcher"]] = (model.predict, identity)
    if config.baseline == "sift":
        methods["sift+ransac"] = (sift, "sift")
    return methods


def _pairs(config: EvalConfig) -> Iterator[Pair]:
    return islice(read_pairs(config.data, config.split), config.limit)


def _images(pair: Pair, styled: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not styled:
        return pair.source, pair.target
    if pair.source_styled is None or pair.target_styled is None:
        raise ValueError(f"pair {pair.index} has no styled images; leave out --styled")
    return pair.source_styled, pair.target_styled


def _export(config: EvalConfig, name: str, method: Method, identity: str, folder: Path) -> None:
    """First pass: a file of predictions a pair, and one for it and the next pair's target."""
    key = {
        "method": identity, "dataset": file_hash(Path(config.data) / MANIFEST),
        "split": config.split, "styled": config.styled, "limit": config.limit,
    }  # fmt: skip
    if (folder / KEY).exists():
        before = json.loads((folder / KEY).read_text())
        changed = [k for k in key if before.get(k) != key[k]]
        if changed:
            raise ValueError(
                f"{folder} holds predictions of another {', '.join(changed)}; choose another "
                "--predictions folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(1 for _ in _pairs(config))
    progress = Progress(name, total, "pairs")
    first = previous = None
    for pair in _pairs(config):
        source, target = _images(pair, config.styled)
        method(source, target).save(folder / f"{pair.index:09d}.npz")
        if previous is not None:
            method(previous[1], target).save(folder / f"{previous[0]:09d}.negative.npz")
        previous = (pair.index, source)
        first = target if first is None else first
        progress.add(1)
    if total > 1 and previous is not None and first is not None:
        method(previous[1], first).save(folder / f"{previous[0]:09d}.negative.npz")
    progress.close()
    write_atomically(folder / KEY, json.dumps(key).encode())


def score(config: EvalConfig, folder: Path) -> Scores:
    """Second pass: mean scores of the exported predictions."""
    scores = []
    for pair in _pairs(config):
        scores.append(score_pair(Prediction.load(folder / f"{pair.index:09d}.npz"), pair))
        negative = folder / f"{pair.index:09d}.negative.npz"
        if negative.exists():
            scores.append(score_negative(Prediction.load(negative)))
    return mean_scores(scores)


def table(rows: dict[str, tuple[Scores, StereoScores]]) -> str:
    """The scores as a Markdown table, a row a method."""
    lines = [
        "| method | mask IoU | PCK@1% | PCK@3% | PCK@5% | false area | stereo PCK@1% | @3% | @5% |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (scores, stereo) in rows.items():
        values = [*asdict(scores).values(), *asdict(stereo).values()]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """The same with null for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and value != value else value
