"""What segswap-benchmark does: published benchmarks; predictions first, scores second."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.benchmark.base import Scores, Task
from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.methods import Contestants
from pipelines.benchmark.published import PUBLISHED, Published
from pipelines.benchmark.sets import BENCHMARKS, Benchmark
from pipelines.command import cli
from pipelines.command.outputs import check_file, check_folder, write_json
from pipelines.command.progress import Progress
from pipelines.evaluate.predictions import (
    Method,
    export,
    file_name,
    load_models,
    predictions_folder,
    with_best_ellipse,
)

Rows = dict[str, Scores]  # by method
_ONE = {"pairs": "pair", "queries": "query", "images": "image"}


@dataclass(frozen=True)
class Section:
    """A benchmark and what was measured on it.

    Attributes:
        benchmark: which one.
        folder: of its data; None where there is none.
        task: the data; None as well.
        rows: scores by method.
    """

    benchmark: Benchmark
    folder: Path | None
    task: Task | None
    rows: Rows


def benchmark(config: BenchmarkConfig) -> int:
    """Measure, print the tables, and write the JSON file if one is asked for.

    Raises:
        ValueError: the data, a model, the predictions' folder or the scores' file cannot be used.
        RuntimeError: the hub with a model cannot be reached, or the device's memory is too small.
    """
    check_file("--json", config.json)
    check_folder("--predictions", config.predictions)
    sections = measure(config)
    print("\n\n".join(_text(section, config) for section in sections))
    if config.json:
        content = {
            "settings": cli.as_dict(config),
            "benchmarks": {section.benchmark.name: _record(section) for section in sections},
        }
        write_json(config.json, content)
    return 0


def measure(config: BenchmarkConfig) -> list[Section]:
    """The benchmarks that are asked for, measured where their data is there.

    Raises:
        ValueError: see `benchmark`; also where `all` finds no data at all.
    """
    # All data is looked at before the work begins.
    opened = [
        (one, folder, one.task(folder, config.limit) if folder else None)
        for one, folder in _folders(config)
    ]
    models = load_models(config.model, config.device)
    with predictions_folder(config.predictions) as folder:
        kept = folder.absolute()
        contestants = Contestants(models, config.baseline, config.device, kept, config.confidence)
        return [
            Section(one, folder, task, _rows(one, task, contestants, kept) if task else {})
            for one, folder, task in opened
        ]


def _folders(config: BenchmarkConfig) -> list[tuple[Benchmark, Path | None]]:
    """The benchmarks with the folders of their data."""
    root = Path(config.root).expanduser().absolute()
    if config.name != "all":
        return [(BENCHMARKS[config.name], root)]
    if not root.is_dir():
        raise ValueError(f"{config.root} is not a folder")
    found = [(one, one.find(root)) for one in BENCHMARKS.values()]
    if not any(folder for _, folder in found):
        raise ValueError(
            f"{config.root} holds no benchmark; expected folders named {', '.join(BENCHMARKS)}"
        )
    return found


def _rows(one: Benchmark, task: Task, contestants: Contestants, kept: Path) -> Rows:
    """Scores by method; predictions are made first where they are not there."""
    rows: Rows = {}
    for name, method in contestants.methods(task).items():
        folder = kept / file_name(name) / one.name
        key = {"method": method.identity, "benchmark": one.name, **task.identity}
        export(folder, key, partial(_make, f"{name}, {one.name}", task, method))
        rows[name] = task.score(folder)
    return with_best_ellipse(rows, _overlap)


def _overlap(scores: Scores) -> float:
    """The scores' mean J; NaN where there is none."""
    return next((scores[name] for name in ("J", "J within") if name in scores), float("nan"))


def _make(what: str, task: Task, method: Method[Any], folder: Path) -> None:
    progress = Progress(what, task.count, task.unit)
    try:
        task.export(method.way, folder, progress.add)
    finally:
        progress.close()


# --- what is shown -------------------------------------------------------------------------------


def _text(section: Section, config: BenchmarkConfig) -> str:
    one, task = section.benchmark, section.task
    if task is None:
        where = Path(config.root) / one.name
        said = f"{one.title}: not measured here: no data at {where} ({one.source})"
    else:
        unit = _ONE[task.unit] if task.count == 1 else task.unit
        note = f" (--limit {config.limit}: not to be compared with published scores)"
        said = f"{one.title}, {task.count} {unit}{note if config.limit is not None else ''}:"
    shown = table(section.rows, PUBLISHED.get(one.name, ()))
    return f"{said}\n\n{shown}" if shown else said


def table(rows: Rows, published: tuple[Published, ...]) -> str:
    """Scores as a Markdown table: measured rows first, published ones below, each with its source;
    empty where there is neither.
    """
    columns = list(dict.fromkeys(c for scores in rows.values() for c in scores))
    if not rows:
        columns = list(dict.fromkeys(c for row in published for c in row.scores))
    if not columns:
        return ""
    lines = [
        f"| method | {' | '.join(columns)} | source |", "|---|" + "---|" * (len(columns) + 1)
    ]  # fmt: skip
    lines += [_line(name, scores, columns, "measured") for name, scores in rows.items()]
    lines += [
        _line(row.method, row.scores, columns, f"published: {row.source}") for row in published
    ]
    return "\n".join(lines)


def _line(method: str, scores: Scores, columns: list[str], source: str) -> str:
    values = (scores.get(column, float("nan")) for column in columns)
    shown = ("-" if value != value else f"{value:.3f}" for value in values)
    return f"| {method} | {' | '.join(shown)} | {source} |"


def _record(section: Section) -> dict[str, Any]:
    """A section in JSON."""
    one = section.benchmark
    record: dict[str, Any] = {
        "title": one.title, "measured": section.task is not None, "source": one.source,
        "scores": section.rows,
        "published": [
            {"method": row.method, "scores": row.scores, "source": row.source}
            for row in PUBLISHED.get(one.name, ())
        ],
    }  # fmt: skip
    if section.task is not None:
        record |= {
            "folder": str(section.folder), "count": section.task.count,
            "unit": section.task.unit, "identity": section.task.identity,
        }  # fmt: skip
    return record
