"""What all benchmarks have in common: where their data is, and what a run of one is made of."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.benchmark.sources import SOURCES
from segswap.files.folders import is_litter
from segswap.files.formats import EXTENSIONS
from segswap.files.storage import name_bytes

Scores = dict[str, float]  # by the tables' columns; NaN where there was nothing to judge
Advance = Callable[[int], None]  # told of every prediction that is done


class Task(Protocol):
    """A benchmark's data, opened: what is predicted, and what predictions are worth.

    Attributes:
        count, unit: how many predictions there are, and of what.
        identity: what predictions depend on, beside the method.
    """

    @property
    def count(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def identity(self) -> dict[str, Any]: ...

    def export(self, way: Any, folder: Path, advance: Advance) -> None:
        """First pass: write every prediction of a method into a folder."""
        ...

    def score(self, folder: Path) -> Scores:
        """Second pass: the benchmark's scores of what is in the folder."""
        ...


@dataclass(frozen=True)
class Benchmark:
    """A published data set with its protocol.

    Attributes:
        name: on the command line.
        title: what it is, in a line.
        folders: names under which `segswap-benchmark all` looks for it.
        layout: what its folder holds.
        open: reads its annotations, from its folder and the most predictions that are wanted.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    layout: str
    open: Callable[[Path, int | None], Task]

    @property
    def source(self) -> str:
        """Where a user gets the data."""
        return SOURCES[self.name]

    def task(self, root: Path, limit: int | None) -> Task:
        """The data in a folder.

        Raises:
            ValueError: a file is missing or damaged, or there is nothing; the layout is named.
        """
        try:
            if not root.is_dir():
                raise ValueError(f"{root} is not a folder")
            task = self.open(root, limit)
            if not task.count:
                raise ValueError(f"{root} holds nothing to measure on")
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{self.name}: {error}. Expected in {root}: {self.layout}. The data is at "
                f"{self.source}"
            ) from error
        return task

    def find(self, root: Path) -> Path | None:
        """The benchmark's folder below a folder of many; None where it is not there."""
        places = (root / name for name in self.folders)
        return next((place for place in places if place.is_dir()), None)


def existing(path: Path, *others: Path) -> Path:
    """The first of these paths that is there.

    Raises:
        ValueError: none is; the first is named.
    """
    found = next((place for place in (path, *others) if place.exists()), None)
    if found is None:
        raise ValueError(f"{path} is missing")
    return found


def images_of(folder: Path) -> list[Path]:
    """The image files of a folder, sorted.

    Raises:
        ValueError: it is missing or holds none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing")
    found = sorted(
        path for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not is_litter(path.name) and path.is_file()
    )  # fmt: skip
    if not found:
        raise ValueError(f"{folder} holds no image")
    return found


def fingerprint(root: Path, files: Iterable[Path]) -> str:
    """Hash of the names of files, relative to a folder, and of their lengths.

    Not of their contents: benchmarks hold up to tens of gigabytes.

    Raises:
        ValueError: a file is missing.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            length = path.stat().st_size
        except FileNotFoundError as error:
            raise ValueError(f"{path} is missing") from error
        digest.update(name_bytes(f"{path.relative_to(root)} {length}\n"))
    return digest.hexdigest()


def means(rows: Sequence[Scores]) -> Scores:
    """Means of scores, each over the rows in which it is there and not NaN."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return {column: mean([row.get(column, np.nan) for row in rows]) for column in columns}


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN of none."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")
