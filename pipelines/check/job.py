"""What segswap-check does: is a dataset, of this program or another one, what the format says?"""

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from pipelines.check.config import CheckConfig
from pipelines.check.files import Entry, check_folder, check_manifest, read_shard
from pipelines.check.findings import Findings
from pipelines.check.pixels import Registrations
from pipelines.check.samples import Sample, Say, check_sample
from pipelines.command.outputs import check_file, write_json
from pipelines.command.progress import Progress
from pipelines.command.tasks import settle
from segswap.data.manifest import read_manifest
from segswap.data.shards import Members
from segswap.files import storage


def check(config: CheckConfig) -> int:
    """Check a dataset and print the table; returns 1 where there is a problem, else 0.

    Raises:
        ValueError: there is no finished dataset of this format, or --json cannot be written.
    """
    if config.json and not storage.is_url(config.json):
        check_file("--json", config.json)
    settle()
    manifest = read_manifest(config.data)
    checker = Checker(config.data)
    checker.run(manifest, config.register)
    findings = checker.findings
    print(findings.table())
    verdict = f"{findings.count} problems" if findings.count else "clean"
    print(f"\n{config.data}: {verdict}")
    if config.json:
        report = {
            "dataset": config.data, "clean": not findings.count, "checks": findings.as_dict(),
            "position_error": checker.registrations.as_dict(),
        }  # fmt: skip
        write_json(config.json, report)
    return 1 if findings.count else 0


@dataclass
class Checker:
    """The state of one check.

    Attributes:
        dataset: folder or URL.
        findings: what was found.
        registrations: those of the pairs that were chosen.
        used: for each split, images by dataset and name, and the shard and key that first use them.
    """

    dataset: str
    findings: Findings = field(default_factory=Findings)
    registrations: Registrations = field(default_factory=Registrations)
    used: dict[str, dict[tuple[str, str], tuple[str, str]]] = field(default_factory=dict)

    def run(self, manifest: dict[str, Any], register: int) -> None:
        """Check everything, and the pixels of so many pairs."""
        splits = check_manifest(manifest, self.findings)
        check_folder(self.dataset, splits, self.findings)
        config = manifest.get("config")
        stride = config.get("grid_stride") if isinstance(config, dict) else None
        stride = stride if isinstance(stride, int) else None
        total = sum(entry["pairs"] for entries in splits.values() for entry in entries)
        chosen = np.linspace(0, total - 1, min(register, total)).round().astype(int)
        progress = Progress("pairs", total, "pairs")
        before = 0
        for split, entries in splits.items():
            first = 0
            for entry in entries:
                here = set((chosen - before).tolist())
                self._shard(split, entry, first, stride, here, progress)
                first += entry["pairs"]
                before += entry["pairs"]
        progress.close()
        self._pixels()
        self._splits()

    def _shard(
        self, split: str, entry: Entry, expected: int, stride: int | None, chosen: set[int],
        progress: Progress,
    ) -> None:  # fmt: skip
        """Check one shard, whose first key should be `expected`."""
        self.findings.looked("shards")
        say = self._say(entry["name"])
        count = 0
        for key, members in read_shard(self.dataset, entry, say):
            say_of = self._say(entry["name"], key)
            if int(key) != expected:
                say_of("samples", f"the key {key}", f"{expected:09d}, one more than the last")
            expected = int(key) + 1
            sample = check_sample(key, members, stride, say_of)
            self._count(members, sample)
            self._remember(split, sample, entry["name"], key)
            if count in chosen:
                for found, wanted in self.registrations.add(members, sample):
                    say_of("map and pixels", found, wanted)
            count += 1
            progress.add(1)
        if count != entry["pairs"]:
            say("samples", f"{count} pairs", f"{entry['pairs']}, as listed")
            progress.add(max(entry["pairs"] - count, 0))

    def _say(self, file: str, key: str | None = None) -> Say:
        return lambda check, found, expected: self.findings.problem(
            check, file, found, expected, key
        )

    def _count(self, members: Members, sample: Sample) -> None:
        looked = self.findings.looked
        looked("samples")
        looked("records", "json" in members)
        looked("images", sum(part.endswith((".jpg", ".png")) for part in members))
        if sample.record and sample.masks:
            looked("labels", len(sample.masks))
            looked("map and masks", len(sample.matrices))
            looked("grids", sum(part.endswith(".npy") for part in members))

    def _remember(self, split: str, sample: Sample, name: str, key: str) -> None:
        """Keep which images a sample was made from."""
        used = self.used.setdefault(split, {})
        origins = [item["segment"] for item in sample.record.get("objects", [])]
        for origin in [*origins, sample.record.get("background")]:
            if isinstance(origin, dict) and "image" in origin:
                used.setdefault((str(origin.get("dataset")), str(origin["image"])), (name, key))

    def _pixels(self) -> None:
        row = self.findings.checks["map and pixels"]
        row.looked_at = self.registrations.objects
        row.note = str(self.registrations)
        for found, expected in self.registrations.median_too_large():
            self.findings.problem("map and pixels", "all shards", found, expected, None)

    def _splits(self) -> None:
        """No image is in two splits, neither as a source nor as a background."""
        for used in self.used.values():
            self.findings.looked("splits", len(used))
        for (one, first), (two, second) in combinations(self.used.items(), 2):
            for dataset, image in sorted(first.keys() & second.keys()):
                name, key = second[dataset, image]
                self.findings.problem(
                    "splits", name, f"{two} uses {image} of {dataset}, as {one} does",
                    "splits that have no image in common", key,
                )  # fmt: skip
