"""throughput.json: how fast a dataset was made, and which stage took the time."""

import json
import platform
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from segswap.files.stopwatch import Histogram, percentile

THROUGHPUT = "throughput.json"


def throughput(
    records: list[dict[str, Any]], made: int, seconds: float, workers: int
) -> dict[str, Any]:
    """What throughput.json holds.

    Args:
        records: of all shards, also those of earlier runs: bytes and stages are theirs.
        made: pairs that this run made.
        seconds: its wall time, without the start of Ray and the indexing of the inputs.
        workers: processes that worked at the same time.

    Returns:
        A JSON object; a stage's median and p95 are milliseconds a pair in one process, rejected
        draws and what is done once a shard included in the pairs' time.
    """
    stages: defaultdict[str, Histogram] = defaultdict(Counter)
    for record in records:
        for stage, histogram in record["stages"].items():
            stages[stage].update({int(key): count for key, count in histogram.items()})
    pairs = sum(record["shard"]["pairs"] for record in records)
    return {
        "pairs": pairs,
        "pairs_this_run": made,
        "wall_seconds": round(seconds, 3),
        "pairs_per_second": round(made / seconds, 2) if made else None,
        "bytes_per_pair": round(sum(r["shard"]["bytes"] for r in records) / pairs),
        "workers": workers,
        "cpu": processor(),
        "stage_milliseconds": {
            stage: {
                "median": float(f"{percentile(histogram, 0.5):.3g}"),
                "p95": float(f"{percentile(histogram, 0.95):.3g}"),
            }
            for stage, histogram in sorted(stages.items())
        },
    }


def processor() -> str:
    """The name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(content: dict[str, Any]) -> bytes:
    """The file's bytes."""
    return json.dumps(content, indent=1).encode()
