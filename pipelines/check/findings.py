"""What a check of a dataset found: counts of what was looked at, and the problems, by check."""

from dataclasses import asdict, dataclass, field
from typing import Any

_KEPT = 1000  # problems of one check that are kept; the others are only counted
_SHOWN = 3  # of them in the table's list
# Check: what it counts.
CHECKS = {
    "manifest": "files", "files": "files", "shards": "shards", "samples": "pairs",
    "records": "pairs", "images": "images", "labels": "masks", "map and masks": "objects",
    "map and pixels": "objects", "grids": "grids", "splits": "images",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that is not as the format says.

    Attributes:
        file: the shard, or another file of the dataset.
        key: the sample's, None where the problem is not one sample's.
        found, expected: in words.
    """

    file: str
    key: str | None
    found: str
    expected: str

    def __str__(self) -> str:
        place = self.file if self.key is None else f"{self.file} {self.key}"
        return f"{place}: {self.found}; expected {self.expected}"


@dataclass
class Check:
    """One row of the table."""

    looked_at: int = 0
    count: int = 0
    problems: list[Problem] = field(default_factory=list)
    note: str = ""


class Findings:
    """The problems of a dataset by check, those of CHECKS."""

    def __init__(self) -> None:
        self.checks = {name: Check() for name in CHECKS}

    @property
    def count(self) -> int:
        """How many problems there are in all."""
        return sum(check.count for check in self.checks.values())

    def looked(self, name: str, count: int = 1) -> None:
        """Count what a check has looked at."""
        self.checks[name].looked_at += count

    def problem(self, name: str, file: str, found: str, expected: str, key: str | None) -> None:
        """Add a problem to a check."""
        check = self.checks[name]
        check.count += 1
        if len(check.problems) < _KEPT:
            texts = [_printable(text) for text in (found, expected)]
            check.problems.append(Problem(_printable(file), key, *texts))

    def table(self) -> str:
        """A row for each check, and below it the first problems of each."""
        rows = [f"{'check':<16}{'looked at':<20}problems"]
        for name, check in self.checks.items():
            looked = f"{check.looked_at} {CHECKS[name]}"
            rows.append(f"{name:<16}{looked:<20}{check.count}  {check.note}".rstrip())
        for name, check in self.checks.items():
            if check.count:
                rows += ["", f"{name}:", *(f"  {p}" for p in check.problems[:_SHOWN])]
            if check.count > _SHOWN:
                rows.append(f"  and {check.count - _SHOWN} more")
        return "\n".join(rows)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            name: {
                "looked_at": check.looked_at, "unit": CHECKS[name], "problems": check.count,
                "note": check.note, "found": [asdict(problem) for problem in check.problems],
            }
            for name, check in self.checks.items()
        }  # fmt: skip


def _printable(text: str) -> str:
    """Text of a file's as one line that no terminal takes for a command."""
    short = text if len(text) <= 300 else text[:300] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)
