"""What segswap-index does: a collection's features on disk, made by any number of workers."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.command.messages import LOG
from pipelines.command.outputs import GO_ON, check_folder
from pipelines.command.progress import Progress
from pipelines.command.stopping import SHARDS, stopping
from pipelines.command.workers import INLINE, Workers
from pipelines.search.index_config import IndexConfig
from pipelines.search.index_shards import ShardTask, make_shard, save_array
from segswap.files.arrays import map_array
from segswap.files.folders import find_images, say_others
from segswap.files.locks import is_empty, locked
from segswap.files.storage import (
    absolute,
    is_url,
    join,
    local_path,
    name_bytes,
    replacing,
    sweep,
    text_of,
    write_atomically,
)
from segswap.files.stores import no_room_says
from segswap.models.hub import find_model, fingerprint
from segswap.search.index import Index
from segswap.search.index_files import (
    FORMAT,
    SETTINGS,
    descriptors_file,
    entry_type,
    images_file,
    read_settings,
    read_shard_record,
    state_of,
    vectors_file,
)

_SHARD = 64  # images, at most: the unit of work and of retry
_SHARES = 4  # shards a worker, at least, so that all end at about the same time


def make_index(config: IndexConfig) -> int:
    """Build the index and say what is in it.

    Raises:
        ValueError: images, model or folder cannot be used.
        RuntimeError: Ray does not start, the hub cannot be reached, or memory runs out.
    """
    images, passed = collect(config.images)
    index = build_index(
        images, config.model, Path(config.out), config.running, device=config.device,
        passed=passed,
    )  # fmt: skip
    say_skipped(index.skipped)
    used = sum(path.stat().st_size for path in index.folder.iterdir())
    lost = f"{len(index.skipped)} skipped" + f" (see {SETTINGS})" * bool(index.skipped)
    print(f"{config.out}: {len(index)} images, {lost}, {used / 2**20:.0f} MiB")
    return 0


def say_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Name what could not be read, the first ones of many."""
    for image, reason in skipped[:10]:
        LOG.warning("skipped %s: %s", image, reason)
    if len(skipped) > 10:
        LOG.warning("... and %d more; all are in %s", len(skipped) - 10, SETTINGS)


class Collected(NamedTuple):
    """The images of a collection.

    Attributes:
        images: absolute paths, sorted, each once.
        passed: what of their folders is not used, by path, with the reasons.
    """

    images: list[str]
    passed: dict[str, str]


def collect(places: Sequence[str]) -> Collected:
    """Image files, and all those below folders.

    Raises:
        ValueError: a folder is missing, cannot be listed, or holds no image.
    """
    images: dict[str, str] = {}  # by the real file
    passed: dict[str, str] = {}
    for place in places:
        if os.path.isfile(local_path(place)):
            images.setdefault(absolute(place), absolute(place))
            continue
        found, root = find_images(place), absolute(place)
        say_others(place, found)
        for path in (join(root, name) for name in found.images):
            images.setdefault(path if is_url(path) else os.path.realpath(path), path)
        passed |= {join(root, entry.path): entry.reason for entry in found.passed}
    return Collected(sorted(images.values(), key=text_of), passed)


def build_index(
    images: Sequence[str], model: str, out: Path, workers: Workers = INLINE, *,
    device: str = "auto", mirrored: bool = False, passed: Mapping[str, str] = MappingProxyType({}),
) -> Index:  # fmt: skip
    """Build an index, go on with an unfinished one, or add images to a finished one.

    Args:
        images: absolute paths.
        model: see `segswap.load`.
        out: folder of the index.
        workers: who does the work; this process by default.
        device: where the model runs.
        mirrored: flip the images left to right first.
        passed: what is listed beside the images that cannot be read; see `Collected`.

    Raises:
        ValueError: the folder holds something else or another model's index, no image could be
            read, or model or device cannot be used.
        RuntimeError: Ray does not start, the hub cannot be reached, memory runs out, or another
            command is at work in the folder.
    """
    check_folder("--out", str(out))
    out = Path(absolute(out))
    with locked(out):
        return _build(images, model, out, workers, device, mirrored, passed)


def _build(
    images: Sequence[str], model: str, out: Path, workers: Workers, device: str, mirrored: bool,
    passed: Mapping[str, str],
) -> Index:  # fmt: skip
    """See `build_index`; no other command is at work in the folder."""
    folder = Path(absolute(find_model(model)))
    settings = {
        "format": FORMAT, "model": model, "fingerprint": fingerprint(folder),
        "mirrored": mirrored,
    }  # fmt: skip
    _begin(out, settings)
    records = _records(out)
    known = _latest(records)
    missing = [i for i in images if i not in known or known[i][0]["state"] != state_of(i)]
    first = 1 + max((record["number"] for record in records), default=-1)
    shares = -(-len(missing) // (_SHARES * (1 if workers.inline else workers.workers)))
    length = min(_SHARD, max(1, shares))
    made = _make(out, workers, [
        ShardTask(out, first + n, tuple(missing[at : at + length]), folder, device, mirrored)
        for n, at in enumerate(range(0, len(missing), length))
    ])  # fmt: skip
    skipped = dict.fromkeys(images, "changed while it was read; run again")
    skipped |= _unread(records) | _native(read_settings(out)["skipped"]) | _unread(made)
    with no_room_says(str(out), GO_ON):
        return _finish(out, records + made, skipped, passed)


# --- the index as a whole ------------------------------------------------------------------------


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or check that what is there is an index with the same settings."""
    if (out / SETTINGS).is_file():
        there = read_settings(out)
        # The same files may have got another name.
        changed = [n for n in settings if n != "model" and there.get(n) != settings[n]]
        if changed:
            said = "; ".join(f"{n} was {there.get(n)}, is {settings[n]}" for n in settings)
            raise ValueError(
                f"{out} is the index of another model or of other settings ({said}); choose "
                "another --out, or delete it"
            )
        return
    if not is_empty(out):
        raise ValueError(f"--out {out} is no index and not empty; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    begun = {**settings, "version": 0, "skipped": []}
    write_atomically(out / SETTINGS, json.dumps(begun, indent=1).encode())


def _records(out: Path) -> list[dict[str, Any]]:
    """The records of all whole shards, in the order of their numbers."""
    records = map(read_shard_record, out.glob("shard-*.json"))
    return sorted(records, key=lambda record: record["number"])


def _make(out: Path, workers: Workers, tasks: list[ShardTask]) -> list[dict[str, Any]]:
    """Make shards; returns their records."""
    if not tasks:
        return []
    records = []
    progress = Progress("index", sum(len(task.images) for task in tasks), "images")
    try:
        with (
            no_room_says(str(out), GO_ON), workers.started() as run,
            stopping() as signals, signals.in_order(SHARDS),
        ):  # fmt: skip
            for record in run(make_shard, signals.until_asked(tasks), on_gpu=True):
                records.append(record)
                progress.add(len(record["images"]) + len(record["skipped"]))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from None
    finally:
        progress.close()
        sweep(out)
    if len(records) < len(tasks):
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped")
    seconds, waiting = (sum(record[k] for record in records) for k in ("seconds", "waiting"))
    share = 100 * waiting / max(seconds, 1e-9)
    LOG.info("the model waited for images %.1f%% of the time", share)
    return records


def _unread(records: list[dict[str, Any]]) -> dict[str, str]:
    """The images that could not be read when they were last tried, with the reasons."""
    found: dict[str, str] = {}
    for record in records:
        found.update(record["skipped"])
        for entry in record["images"]:
            found.pop(entry["image"], None)
    return found


def _native(skipped: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {local_path(image): reason for image, reason in skipped}


Known = dict[str, tuple[dict[str, Any], int, int]]


def _latest(records: list[dict[str, Any]]) -> Known:
    """Of every image its entry, shard and row; of one that was read twice the later ones."""
    return {
        entry["image"]: (entry, record["number"], row)
        for record in records
        for row, entry in enumerate(record["images"])
    }


def _finish(
    out: Path, records: list[dict[str, Any]], skipped: dict[str, str], passed: Mapping[str, str]
) -> Index:
    """Put all images together in the order of their paths, and open the index.

    Args:
        records: of all shards.
        skipped: images that could not be read at some time, and what is to be said of them where
            they are now other files than those that were read.
        passed: see `build_index`.
    """
    known = {}
    for image, latest in _latest(records).items():
        state = state_of(image)
        # What was read before the file became what it is now says nothing of it.
        if state != [] and (state == latest[0]["state"] or image not in skipped):
            known[image] = latest
    if not known:
        reasons = "; ".join(f"{image}: {reason}" for image, reason in list(skipped.items())[:3])
        raise ValueError(f"{out}: no image could be read ({reasons or 'all files are gone'})")
    names = {image: name_bytes(image) for image in known}
    images = sorted(known, key=lambda image: names[image])
    entries = np.zeros(len(images), entry_type(max(map(len, names.values()))))
    for at, image in enumerate(images):
        entry, shard, row = known[image]
        entries[at] = (
            names[image], entry["sha256"].encode(), entry["width"], entry["height"], shard, row
        )  # fmt: skip
    before = read_settings(out)
    version = before["version"] + 1
    save_array(images_file(out, version), entries)
    _save_descriptors(out, version, entries)
    # Of folders the walk of this run has the last word.
    lost = {i: r for i, r in skipped.items() if state_of(i) != [] and not os.path.isdir(i)}
    listed = sorted((i, r) for i, r in (lost | dict(passed)).items() if i not in known)
    # One model encoded them all: the tensors' names are the same in every shard that has images.
    encoded = next(record["encoded"] for record in records if record["images"])
    settings = {**before, "version": version, "encoded": encoded, "skipped": listed}
    # The one step by which the new state counts.
    write_atomically(out / SETTINGS, json.dumps(settings, indent=1).encode())
    for old in (images_file(out, version - 1), vectors_file(out, version - 1)):
        old.unlink(missing_ok=True)
    return Index.open(out)


def _save_descriptors(out: Path, version: int, entries: NDArray[Any]) -> None:
    """Write all descriptors in the order of the entries, a run of one shard's rows at a time."""
    ends = np.flatnonzero(np.diff(entries["shard"])) + 1
    with replacing(vectors_file(out, version)) as file:
        for number, part in enumerate(np.split(entries, ends)):
            path = descriptors_file(out, int(part["shard"][0]))
            rows = map_array(path, "f", 2)[part["row"]]
            if number == 0:
                shape = (len(entries), rows.shape[1])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(rows, "<f4").tobytes())
