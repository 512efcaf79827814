"""Evaluation in two passes: predictions of every method into files first, scores of the files
second; what segswap-eval and segswap-benchmark share of it.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.command.devices import device_of, out_of_memory_says
from segswap.evaluation.baselines import ELLIPSES, ellipse, nearest_features, sift
from segswap.files.locks import locked
from segswap.files.records import read_record
from segswap.files.storage import base_name, write_atomically
from segswap.models.hub import find_model
from segswap.models.model import Model, load
from segswap.models.prediction import Prediction

Image = NDArray[np.uint8]
Predict = Callable[[Image, Image], Prediction]  # from two images, uint8 (H, W, 3)
Way = TypeVar("Way")
Row = TypeVar("Row")
KEY = "predictions.json"


@dataclass(frozen=True)
class Method(Generic[Way]):
    """A method that makes predictions.

    Attributes:
        way: how it makes one.
        identity: of two methods with the same one, predictions are the same.
    """

    way: Way
    identity: str


@dataclass(frozen=True)
class NamedModel:
    """A model under its name in the tables.

    Attributes:
        label: short, and different from those of the other models.
        where: as it was asked for.
        model: loaded.
    """

    label: str
    where: str
    model: Model

    @property
    def identity(self) -> str:
        """Hashes of the model's files."""
        return self.model.fingerprint

    @property
    def title(self) -> str:
        """The label with the matcher's name."""
        return f"{self.label} ({self.model.settings['matcher']})"


def load_models(places: Sequence[str], device: str) -> list[NamedModel]:
    """Models by run, folder, name or hub id, on a device.

    Raises:
        ValueError: a model cannot be loaded, or the device is not there.
        RuntimeError: the hub cannot be reached.
    """
    there = device_of(device)
    models = []
    for where in places:
        short = base_name(where)
        alone = sum(base_name(other) == short for other in places) == 1
        model = load(find_model(where), there)
        models.append(NamedModel(short if alone else where, where, model))
    return models


def pair_methods(
    models: Sequence[NamedModel], baselines: Sequence[str], masks: bool
) -> dict[str, Method[Predict]]:
    """The methods that match two images, by their names in the tables: models, `features` of each,
    `sift`, and, where masks are scored, the `ellipse` in each of its sizes; other baselines are
    passed over.
    """
    methods: dict[str, Method[Predict]] = {}
    for named in models:
        methods[named.title] = Method(named.model.predict, named.identity)
        if "features" in baselines:
            methods[f"features of {named.label}"] = Method(
                partial(_nearest, named.model), f"features {named.identity}"
            )
    if "sift" in baselines:
        methods["sift+ransac"] = Method(sift, "sift")
    if "ellipse" in baselines and masks:
        for share, name in ellipse_names().items():
            methods[name] = Method(partial(ellipse, share=share), name)
    return methods


def _nearest(model: Model, source: Image, target: Image) -> Prediction:
    return nearest_features(*model.features(source, target))


def ellipse_names() -> dict[float, str]:
    """The sizes of the baseline `ellipse` with their names in the tables."""
    return {share: f"ellipse {share}" for share in ELLIPSES}


def with_best_ellipse(rows: Mapping[str, Row], score: Callable[[Row], float]) -> dict[str, Row]:
    """Rows of a table, of the ellipses' only the one whose masks have the highest score."""
    ellipses = [name for name in ellipse_names().values() if name in rows]
    best = max(ellipses, key=lambda name: score(rows[name]), default=None)
    return {name: row for name, row in rows.items() if name not in ellipses or name == best}


@contextmanager
def predictions_folder(kept: str | None) -> Iterator[Path]:
    """The folder that keeps predictions, or a temporary one."""
    if kept:
        with locked(kept):
            yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="segswap-") as folder:
        yield Path(folder)


def file_name(name: str) -> str:
    """A method's name as one of a folder."""
    return re.sub(r"[^\w.+-]+", "_", name)


def export(folder: Path, key: dict[str, Any], make: Callable[[Path], None]) -> None:
    """First pass: have predictions written into a folder, unless it has all of them.

    Args:
        key: what they depend on, JSON values; kept beside them.
        make: writes them.

    Raises:
        ValueError: the folder holds predictions of another key, whose differences are named.
        RuntimeError: the device's memory is too small.
    """
    if (folder / KEY).exists():
        there, wanted = _read_key(folder), json.loads(json.dumps(key))
        changed = sorted(k for k in there.keys() | wanted.keys() if there.get(k) != wanted.get(k))
        if changed:
            raise ValueError(
                f"{folder} holds predictions of another {', '.join(changed)}; choose another "
                "--predictions folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with out_of_memory_says("use --device cpu, or a model trained with a smaller --match-size"):
        make(folder)
    write_atomically(folder / KEY, json.dumps(key).encode())


def _read_key(folder: Path) -> dict[str, Any]:
    try:
        return read_record(folder / KEY, {})
    except ValueError as error:
        raise ValueError(f"{error}; delete {folder} and run again") from error


@contextmanager
def damage_says(folder: Path) -> Iterator[None]:
    """What to do where a file of a folder of predictions cannot be read."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; delete {folder} and run again") from error
