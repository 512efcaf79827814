"""What segswap-eval does: score models and baselines on pairs; predictions first, scores second."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from pipelines.command import cli
from pipelines.command.outputs import check_file, check_folder, write_json
from pipelines.command.progress import Progress
from pipelines.evaluate.config import EvalConfig
from pipelines.evaluate.pair_sets import PairSet, dataset_set, real_sets
from pipelines.evaluate.predictions import (
    Predict,
    damage_says,
    export,
    file_name,
    load_models,
    pair_methods,
    predictions_folder,
    with_best_ellipse,
)
from segswap.evaluation.metrics import Scores, mean_scores
from segswap.models.prediction import Prediction

Rows = dict[str, Scores]  # by method
HEADINGS = {
    "mask_iou": "mask IoU", "mask_precision": "mask precision", "mask_recall": "mask recall",
    "pck_1": "PCK@1%", "pck_3": "PCK@3%", "pck_5": "PCK@5%", "false_area": "false area",
}  # fmt: skip


def evaluate(config: EvalConfig) -> int:
    """Score every method, print the tables, and write the JSON file if one is asked for.

    Raises:
        ValueError: the dataset, a model, the predictions' folder or the scores' file cannot be
            used.
        RuntimeError: the hub with a model cannot be reached, or the device's memory is too small.
    """
    check_file("--json", config.json)
    check_folder("--predictions", config.predictions)
    sets = _sets(config)
    scores = _score_sets(config, sets)
    for number, pairs in enumerate(sets):
        print("\n" * (number > 0) + f"{pairs.title}:\n\n{table(scores[pairs.name])}")
    if config.json:
        content = {
            "settings": cli.as_dict(config),
            "sets": {
                pairs.name: {
                    "title": pairs.title,
                    **pairs.identity,
                    "scores": {name: asdict(s) for name, s in scores[pairs.name].items()},
                }
                for pairs in sets
            },
        }
        write_json(config.json, content)
    return 0


def score_methods(config: EvalConfig) -> dict[str, Rows]:
    """Scores by set of pairs ("pairs", "stereo", "homographies", "tss-GROUP") and method."""
    return _score_sets(config, _sets(config))


def table(rows: Rows) -> str:
    """Scores as a Markdown table, a row a method; scores that no method has are left out."""
    columns = [c for c in HEADINGS if any(_has(scores, c) for scores in rows.values())]
    lines = [
        f"| method | {' | '.join(HEADINGS[column] for column in columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for name, scores in rows.items():
        values = (f"{getattr(scores, c):.3f}" if _has(scores, c) else "-" for c in columns)
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _has(scores: Scores, column: str) -> bool:
    return not np.isnan(getattr(scores, column))


def _sets(config: EvalConfig) -> list[PairSet]:
    sets = real_sets(config.homographies, config.tss)
    if config.data is not None:
        sets.insert(0, dataset_set(config.data, config.split, config.styled, config.limit))
    return sets


def _score_sets(config: EvalConfig, sets: list[PairSet]) -> dict[str, Rows]:
    models = load_models(config.model, config.device)
    scores: dict[str, Rows] = {}
    with predictions_folder(config.predictions) as root:
        for pairs in sets:
            rows: Rows = {}
            for name, method in pair_methods(models, config.baseline, pairs.masks).items():
                folder = root / file_name(name) / pairs.name
                key = {"method": method.identity, **pairs.identity}
                export(folder, key, partial(_predict, name, method.way, pairs))
                rows[name] = _score(pairs, folder)
            scores[pairs.name] = with_best_ellipse(rows, lambda row: row.mask_iou)
    return scores


def _predict(name: str, predict: Predict, pairs: PairSet, folder: Path) -> None:
    """First pass: a file for the prediction of every task."""
    progress = Progress(f"{name}, {pairs.name}", pairs.count, "pairs")
    for task in pairs.tasks():
        predict(task.source, task.target).save(folder / f"{task.name}.npz")
        progress.add(1)
    progress.close()


def _score(pairs: PairSet, folder: Path) -> Scores:
    """Second pass: mean scores of the exported predictions."""
    scores = []
    for task in pairs.tasks():
        with damage_says(folder):
            prediction = Prediction.load(folder / f"{task.name}.npz")
        scores.append(task.score(prediction))
    return mean_scores(scores)
