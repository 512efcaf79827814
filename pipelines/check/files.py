"""A dataset's files against its manifest: what is listed, what is there, what a shard holds."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipelines.check.findings import Findings
from pipelines.check.samples import Say
from segswap.data import schema
from segswap.data.manifest import MANIFEST
from segswap.data.shards import Members, shard_name
from segswap.files import cache, storage
from segswap.files.records import contradictions

CARD, METADATA = "README.md", "croissant.json"
_MEMBER = re.compile(
    r"(?P<key>[0-9]{9})\.(?P<part>(source|target)(_styled)?\.jpg|(source|target)_mask\.png|json"
    r"|(source|target)_grid\.npy)"
)
_SPLIT = re.compile(r"\w[\w.-]*")
Entry = dict[str, Any]  # of a shard in the manifest


def check_manifest(manifest: dict[str, Any], findings: Findings) -> dict[str, list[Entry]]:
    """Check a manifest; returns the usable shard entries of each split."""

    def say(found: str, expected: str) -> None:
        findings.problem("manifest", MANIFEST, found, expected, None)

    findings.looked("manifest")
    for found in contradictions(manifest, schema.MANIFEST, "the manifest"):
        say(*found)
    for name, kind in (("inputs", schema.INPUT), ("skipped", schema.SKIPPED)):
        items = manifest.get(name)
        for item in items if isinstance(items, list) else []:
            for found in contradictions(item, kind, f"an entry of {name}"):
                say(*found)
    splits = {}
    for split, listed in manifest["splits"].items():
        wrong = list(contradictions(listed, schema.SPLIT, f"the split {split}"))
        if not wrong and not _SPLIT.fullmatch(split):
            wrong = [(f"a split called {split!r}", "letters, digits and -")]
        for found in wrong:
            say(*found)
        if not wrong:
            splits[split] = list(_entries(split, listed, say))
    return splits


def _entries(split: str, listed: dict[str, Any], say: Any) -> Iterator[Entry]:
    """A split's usable shard entries."""
    usable = []
    for number, entry in enumerate(listed["shards"]):
        wrong = list(contradictions(entry, schema.SHARD, f"a shard of {split}"))
        if not wrong and not 0 <= entry["pairs"] < 10**9:
            wrong = [(f"a shard of {entry['pairs']} pairs", "keys of nine digits")]
        for found in wrong:
            say(*found)
        if wrong:
            continue
        if entry["name"] != shard_name(split, number):
            say(f"a shard {entry['name']!r}", shard_name(split, number))
        # Whatever a manifest lists, nothing outside of the dataset is opened.
        if re.fullmatch(r"\w[\w.-]*\.tar", entry["name"]):
            usable.append(entry)
    total = sum(entry["pairs"] for entry in usable)
    if total != listed["pairs"]:
        say(f"{listed['pairs']} pairs in {split}", f"{total}, the sum over its shards")
    yield from usable


def check_folder(dataset: str, splits: dict[str, list[Entry]], findings: Findings) -> None:
    """Check which files there are, the card and the metadata."""
    names = storage.entries(dataset)
    findings.looked("files", len(names))

    def say(file: str, found: str, expected: str) -> None:
        findings.problem("files", file, found, expected, None)

    listed = {entry["name"]: entry for entries in splits.values() for entry in entries}
    for name in names:
        if name.endswith(".tar") and name not in listed:
            say(name, "is there", f"only shards that {MANIFEST} lists")
        if name.endswith(".tmp") or name == ".segswap":
            say(name, "is there", "nothing that a run left unfinished; remove it")
    for name in listed.keys() - set(names):
        say(name, "is missing", f"every shard that {MANIFEST} lists")
    for name in (CARD, METADATA):
        if name not in names:
            say(name, "is missing", "one in every dataset")
    if CARD in names and not _text(dataset, CARD).startswith("---\n"):
        say(CARD, "has no YAML front matter", "a dataset card that begins with ---")
    if METADATA in names:
        for found, expected in _metadata(_text(dataset, METADATA), listed):
            say(METADATA, found, expected)


def _text(dataset: str, name: str) -> str:
    return storage.read_bytes(storage.join(dataset, name)).decode(errors="replace")


def _metadata(text: str, listed: dict[str, Entry]) -> Iterator[tuple[str, str]]:
    """What is wrong with a croissant.json."""
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield f"cannot be read ({error})", "JSON"
        return
    if not isinstance(metadata, dict) or "croissant/1." not in str(metadata.get("conformsTo")):
        yield "conforms to something else", "conformsTo of Croissant 1"
        return
    files = metadata.get("distribution")
    files = [item for item in files if isinstance(item, dict)] if isinstance(files, list) else []
    hashes = {item.get("contentUrl"): item.get("sha256") for item in files}
    for name, entry in listed.items():
        if hashes.get(name) != entry["sha256"]:
            yield f"has sha256 {hashes.get(name)} for {name}", f"{entry['sha256']}, the manifest's"


# --- shards ----------------------------------------------------------------------------------


def read_shard(dataset: str, entry: Entry, say: Say) -> Iterator[tuple[str, Members]]:
    """Check a shard's bytes, and yield its samples as far as they can be read: key and members."""
    path = storage.join(dataset, entry["name"])
    try:
        with open(cache.local_copy(path, str(entry["sha256"])), "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            length = file.tell()
            if length != entry["bytes"]:
                say("shards", f"{length} bytes", f"{entry['bytes']}, as listed")
            if digest.hexdigest() != entry["sha256"]:
                say("shards", f"sha256 {digest.hexdigest()}", f"{entry['sha256']}, as listed")
            file.seek(0)
            yield from _samples(file, length, say)
    except FileNotFoundError:
        say("shards", "is missing", "a file")
    except OSError as error:
        say("shards", f"cannot be read ({error})", "a file")


def _samples(file: BinaryIO, length: int, say: Say) -> Iterator[tuple[str, Members]]:
    """The samples of an open tar file: members of one key that stand together."""
    key, members = "", Members()
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                # No file in a tar is larger than the tar, whatever its header says.
                if not match or not member.isfile() or member.size > length:
                    say("samples", f"a member {member.name!r}", "KEY.PART as the format names them")
                    continue
                if match["key"] != key:
                    if key:
                        yield key, members
                    key, members = match["key"], {}
                    if key in seen:
                        say("samples", f"the key {key} once more", "one sample a key")
                    seen.add(key)
                if match["part"] in members:
                    say("samples", f"{member.name} twice", "one member of a name")
                content = tar.extractfile(member)
                members[match["part"]] = content.read() if content else b""
            # tarfile takes a damaged header, or none at all, for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                say("shards", f"damaged or cut short at byte {tar.offset}", "a whole tar file")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        say("shards", f"cannot be read to its end ({error})", "a whole tar file")
    if key:
        yield key, members
