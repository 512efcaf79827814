"""A dataset's folder: whose it is before the work, and what is written when the work is done."""

import datetime
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from generators.sources.index import Index
from pipelines.generation import attribution, card
from pipelines.generation.config import SPLITS, GenerateConfig
from segswap.data import schema
from segswap.data.coco import Skipped
from segswap.data.manifest import (
    MANIFEST,
    DatasetError,
    check_told,
    listed_shards,
    read_manifest,
)
from segswap.data.pair import FORMAT
from segswap.files import storage
from segswap.files.cache import forget_copies
from segswap.files.locks import LOCK
from segswap.files.records import all_checked, checked, read_record
from segswap.files.storage import PathLike

GROWING = {"pairs", "val_pairs"}  # what --extend may raise
WORK = ".segswap"  # in OUT until the manifest is written: settings, indexes, records of shards
EXIT_SKIPPED = 3
_NAMED = 8  # reasons, the most frequent ones
_SAID = 3  # inputs that could not be used and are named when all is done


def is_finished(out: PathLike, settings: dict[str, Any]) -> bool:
    """Whether OUT, a folder or URL, already holds this very dataset.

    Raises:
        ValueError: it holds another one, or something else, or cannot be written to.
        StorageError: its store cannot be reached, or the bucket does not exist.
    """
    storage.check_writable(out)
    try:
        names = storage.entries(out)
    except NotADirectoryError as error:
        message = f"{out} is a file; expected a folder to write the dataset into"
        raise ValueError(message) from error
    if MANIFEST in names:
        check_same(own_manifest(out)["config"], settings, out)
        further = begun(out)
        if further not in (None, settings):
            raise DatasetError(
                f"{out} is complete, but pairs are being added to it: finish that first, with "
                f"--extend --pairs {further['pairs']} --val-pairs {further['val_pairs']}"
            )
        return True
    job = begun(out)
    if job is not None:
        check_same(job, settings, out)
    elif set(names) - {WORK, LOCK}:
        raise ValueError(f"{out} is not empty and holds no dataset; choose another folder")
    return False


def own_manifest(out: PathLike) -> dict[str, Any]:
    """The manifest of a dataset that segswap-generate has made.

    Raises:
        DatasetError: there is none, or it lacks something that such a one has.
    """
    path, manifest = storage.join(out, MANIFEST), read_manifest(out)
    try:
        checked(manifest, {**schema.MANIFEST, "rejected": (dict,)}, path)
        checked(manifest["config"], dict.fromkeys(GROWING, (int,)), f"{path}: config")
        checked(manifest["splits"], dict.fromkeys(SPLITS, (dict,)), f"{path}: splits")
        checked(manifest["rejected"], dict.fromkeys(manifest["rejected"], (int,)), path)
        all_checked(manifest["inputs"], {**schema.INPUT, "filtered": (dict,)}, f"{path}: inputs")
        check_told(out, manifest)
        listed_shards(out, manifest)
    except ValueError as error:
        raise DatasetError(f"{error}; it is not of segswap-generate") from error
    return manifest


def begun(out: PathLike) -> Any:
    """The settings of the work in OUT that no run has finished; None where there is none.

    Raises:
        ValueError: what tells of it is damaged.
    """
    try:
        return read_record(storage.join(out, WORK, "job.json"), dict.fromkeys(GROWING, (int,)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{error}; delete {storage.join(out, WORK)}") from error


def check_same(before: dict[str, Any], now: dict[str, Any], out: PathLike) -> None:
    """Raise DatasetError, which names what differs, unless settings are those of what OUT holds."""
    before, now = dict(_flat(before)), dict(_flat(now))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        differences = "; ".join(
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed
        )
        more = "" if set(changed) - GROWING else "; --extend adds pairs to a finished one"
        raise DatasetError(
            f"{out} holds a dataset of another configuration ({differences}); "
            f"use the same flags to finish it, or choose another folder{more}"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by name, those of a group as group.name."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def index_folders(config: GenerateConfig) -> list[str]:
    """Where the indexes of a config's segments, and of its backgrounds if those are others, lie."""
    names = ("index", "backgrounds") if config.inputs.backgrounds else ("index",)
    return [storage.join(config.out, WORK, name) for name in names]


@dataclass(frozen=True)
class Made:
    """What a run came to.

    Attributes:
        said: in a sentence.
        lost: sentences on what more of could not be used than --max-skipped allows.
    """

    said: str
    lost: tuple[str, ...] = ()


def finish(
    config: GenerateConfig, settings: dict[str, Any], records: list[Any], skipped: Skipped,
    used: set[attribution.Used],
) -> Made:  # fmt: skip
    """Write the card, then the manifest.

    Args:
        settings: of the config, those that the pairs depend on.
        records: of all shards, in order.
        skipped: inputs that could not be indexed.
        used: the images whose pixels stand in the pairs.
    """
    out, work = config.out, storage.join(config.out, WORK)
    folders = index_folders(config)
    indexes = [Index.load(folder) for folder in folders]
    found = {_named(item): item for record in records for item in record["skipped"]}
    known = set(map(_named, skipped))
    broken = [found[name] for name in sorted(found) if name not in known]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "generator": f"segswap {version('segswap')}",
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": config.amount.seed,
        "config": settings,
        "splits": {split: _split_entry(split, records) for split in SPLITS},
        "inputs": [_input_entry(index) for index in indexes],
        # Those whose fault showed only when they were drawn stand in the index, too.
        "skipped": skipped + [{**entry, "indexed": True} for entry in broken],
        "rejected": _rejected(records),
    }
    storage.sweep(out)
    card.write(out, manifest, attribution.rows(used, indexes))
    storage.write_atomically(storage.join(out, MANIFEST), json.dumps(manifest, indent=1).encode())
    storage.remove_folder(work)
    for folder in (out, *folders):
        forget_copies(folder)
    made = ", ".join(f"{entry['pairs']} {split}" for split, entry in manifest["splits"].items())
    bare = indexes[0].without_segments
    nothing = f"no segment in {bare} of them; " if bare else ""
    return Made(
        f"{out}: {made} pairs from {sum(item['images'] for item in manifest['inputs'])} images; "
        f"{nothing}skipped {_counted(manifest['skipped'])}{_besides(manifest['inputs'])}; "
        f"rejected draws {manifest['rejected']}",
        lost_of(manifest, config.running.max_skipped),
    )


def _named(entry: dict[str, Any]) -> tuple[str, str]:
    """What entries for the same thing have in common."""
    return entry.get("kind", ""), str(entry.get("image"))


def described(entry: dict[str, Any]) -> str:
    """An entry of what could not be used, in a few words."""
    return ", ".join(str(entry[k]) for k in ("image", "annotation", "reason") if k in entry)


def _counted(skipped: Skipped) -> str:
    """How many inputs could not be used, and the first ones of them."""
    if not skipped:
        return "0 inputs"
    named = "; ".join(map(described, skipped[:_SAID])) + "; ..." * (len(skipped) > _SAID)
    return f"{len(skipped)} inputs, listed in {MANIFEST} ({named})"


def _split_entry(split: str, records: list[Any]) -> dict[str, Any]:
    shards = [r["shard"] for r in records if r["shard"]["name"].startswith(f"{split}-")]
    return {"pairs": sum(shard["pairs"] for shard in shards), "shards": shards}


def _input_entry(index: Index) -> dict[str, Any]:
    return {
        "name": index.dataset,
        "images": len(index),
        "segments": len(index.arrays["segments"]),
        "images_without_segments": index.without_segments,
        "proposals": index.header["proposals"],
        "fingerprint": index.header["fingerprint"],
        "filtered": index.header["filtered"],
        "left_out": index.header["left_out"],
        "licences": index.images_by_licence(),
    } | ({"corrected": index.header["corrected"]} if index.header["corrected"] else {})


def _besides(inputs: list[Any]) -> str:
    """What was left out on purpose, and what was not as it should be, in words."""
    said = ""
    for key, what in (("left_out", "left out {} images for their licence"), ("corrected", "noted")):
        counts: Counter[str] = Counter()
        for item in inputs:
            counts.update(item.get(key, {}))
        if counts:
            named = ", ".join(
                f"{count} {reason.removeprefix('licence: ')}"
                for reason, count in counts.most_common(_NAMED)
            )
            said += f"; {what.format(counts.total())} ({named}{', ...' * (len(counts) > _NAMED)})"
    return said


def _rejected(records: list[Any]) -> dict[str, int]:
    """Rejected draws of all shards by reason, the most frequent first."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record["rejected"])
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def lost_of(manifest: dict[str, Any], limit: float) -> tuple[str, ...]:
    """What a larger share of than the limit could not be used, by a dataset's manifest.

    Args:
        limit: the share of the images, or of the annotations.
    """
    inputs, skipped = manifest["inputs"], manifest["skipped"]
    annotations = sum("annotation" in item for item in skipped)
    late = sum(_images(item) for item in skipped if "indexed" in item)
    absent = sum(map(_images, skipped)) - late
    images = absent + sum(item["images"] for item in inputs)
    segments = sum(item["segments"] + sum(item["filtered"].values()) for item in inputs)
    return tuple(
        f"{lost} of {given} {what} could not be used; {MANIFEST} lists them"
        for what, lost, given in (
            ("images", absent + late, images),
            ("annotations", annotations, annotations + segments),
        )
        if lost > limit * given
    )


def _images(entry: dict[str, Any]) -> int:
    """How many of the images an entry stands for; style pictures are none of them."""
    if "annotation" in entry or entry.get("kind") == "style":
        return 0
    return int(entry.get("count", 1))
