"""The one walk of a folder: which files are in it, and what is passed over, and why.

Links to files are files; the same file is an image once. Links to folders are not followed: what
they hold may be anything, loops among it. Whatever systems and programs leave in folders is passed
over without a word. Nothing is opened.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple

from segswap.files import storage
from segswap.files.formats import EXTENSIONS, NOT_READ
from segswap.files.storage import PathLike

LOG = logging.getLogger("segswap")
_LITTER = (
    "._*", ".ds_store", ".appledouble", "__macosx", ".spotlight-v100", ".fseventsd",
    ".temporaryitems", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin",
    "system volume information", ".trash*", "@eadir", "#recycle", "#snapshot", ".@__thumb",
    ".thumbnails", ".ipynb_checkpoints", "lost+found",
)  # fmt: skip
_NAMED = 5  # of what is passed over


class PassedOver(NamedTuple):
    """What of a folder is not used.

    Attributes:
        path: relative to the folder; of several files a pattern.
        reason: why, and what to do, in a few words.
        kind: "image", one that would be used; "folder"; "files", several of one ending; "style",
            where style pictures are looked for.
        images: how many that are; nobody knows it of a folder.
    """

    path: str
    reason: str
    kind: str
    images: int = 1


@dataclass
class Files:
    """All files below a folder, as paths relative to it, with /, in no order.

    Attributes:
        plain: files.
        links: links to files.
        passed: what is neither.
    """

    plain: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    passed: list[PassedOver] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """The images below a folder.

    Attributes:
        images: their paths relative to the folder, with /, sorted.
        passed: what else might have been some.
        others: how many files there are of other endings.
    """

    images: list[str]
    passed: list[PassedOver]
    others: dict[str, int]


def is_litter(name: str) -> bool:
    """Whether systems and programs, not people, leave files or folders of this name."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in _LITTER)


def files_below(folder: PathLike) -> Files:
    """Walk a folder or URL.

    Raises:
        ValueError: it is missing, no folder, or cannot be listed.
        StorageError: the URL cannot be listed.
    """
    if storage.is_url(folder):
        names = storage.files_below(os.fspath(folder))
        return Files([name for name in names if not any(map(is_litter, name.split("/")))])
    root = storage.absolute(folder)
    if not os.path.isdir(root):
        raise ValueError(f"{folder} is not a folder; expected a folder of images")
    found = Files()
    waiting, links = [""], list[str]()
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                _sort_out(entries, below, found, waiting, links)
        except OSError as error:
            if not below:
                raise ValueError(f"{folder} cannot be read ({error.strerror})") from error
            reason = f"a folder that cannot be read ({error.strerror})"
            found.passed.append(PassedOver(below.rstrip("/"), reason, "folder", 0))
    for name in sorted(links, key=storage.text_of):
        _follow(root, name, found)
    return found


def _sort_out(
    entries: Iterable[os.DirEntry[str]], below: str, found: Files, waiting: list[str],
    links: list[str],
) -> None:  # fmt: skip
    """Put a folder's entries where they belong, whose names begin with `below`."""
    for entry in entries:
        name = below + entry.name
        if is_litter(entry.name):
            continue
        if entry.is_symlink():
            links.append(name)
        elif entry.is_dir(follow_symlinks=False):
            waiting.append(name + "/")
        elif entry.is_file(follow_symlinks=False):
            found.plain.append(name)
        else:
            found.passed.append(PassedOver(name, "a pipe, socket or device, not a file", "image"))


def _follow(root: str, name: str, found: Files) -> None:
    """Put a link where it belongs."""
    path = os.path.join(root, name)
    if os.path.isfile(path):
        found.links.append(name)
    elif os.path.isdir(path):
        target = os.path.realpath(path)
        if target != root and not target.startswith(root.rstrip("/") + "/"):
            reason = f"a link to a folder, which is not followed; give {target} itself, or copy it"
            found.passed.append(PassedOver(name, reason, "folder", 0))
    else:
        there = os.path.exists(path)
        reason = "a link to a pipe, socket or device" if there else "a link that leads nowhere"
        found.passed.append(PassedOver(name, reason, "image"))


def find_images(folder: PathLike) -> Found:
    """All image files below a folder or URL, and what is passed over.

    Raises:
        ValueError: the folder is missing, cannot be listed, or holds no image file.
        StorageError: the URL cannot be listed.
    """
    files = files_below(folder)
    images = [name for name in files.plain if _suffix(name) in EXTENSIONS]
    links = [name for name in files.links if _suffix(name) in EXTENSIONS]
    if links:
        root = storage.absolute(folder)
        seen = {os.path.join(root, name) for name in images}
        for name in links:
            target = os.path.realpath(os.path.join(root, name))
            if target not in seen:
                seen.add(target)
                images.append(name)
    counts = Counter(_suffix(name) for name in [*files.plain, *files.links])
    passed = [p for p in files.passed if p.kind != "image" or _suffix(p.path) in ("", *EXTENSIONS)]
    passed += [
        PassedOver(
            f"*{suffix}", f"{counts[suffix]} not read; {NOT_READ[suffix]}", "files", counts[suffix]
        )
        for suffix in sorted(counts.keys() & NOT_READ.keys())
    ]
    others = {s: n for s, n in counts.items() if s not in EXTENSIONS and s not in NOT_READ}
    if not images:
        raise ValueError(
            f"{folder} holds no image; expected files ending in {', '.join(sorted(EXTENSIONS))}"
            + (f"; passed over: {_listed(passed)}" if passed else "")
        )
    images.sort(key=storage.text_of)
    return Found(images, sorted(passed, key=lambda entry: storage.text_of(entry.path)), others)


def image_files(folder: PathLike) -> list[str]:
    """The images of `find_images`; what is passed over is said.

    Raises:
        ValueError, StorageError: see `find_images`.
    """
    found = find_images(folder)
    say_passed_over(folder, found)
    return found.images


def say_passed_over(folder: PathLike, found: Found) -> None:
    """Name what of a folder is not used, the first ones of many, and `say_others`."""
    if found.passed:
        LOG.warning("%s: passed over %s", folder, _listed(found.passed))
    say_others(folder, found)


def say_others(folder: PathLike, found: Found) -> None:
    """Count the files of a folder that are no images by their names."""
    if found.others:
        ordered = sorted(found.others.items())
        LOG.info(
            "%s: no images by their names: %s", folder,
            ", ".join(f"{count} {suffix or 'without ending'}" for suffix, count in ordered),
        )  # fmt: skip


def _listed(passed: list[PassedOver]) -> str:
    named = "; ".join(f"{entry.path}: {entry.reason}" for entry in passed[:_NAMED])
    return named + (f"; and {len(passed) - _NAMED} more" if len(passed) > _NAMED else "")


def subfolders(folder: PathLike) -> list[str]:
    """Names of the folders directly in a local folder, sorted; links to folders among them, but
    for those to itself or to a folder above.

    Raises:
        ValueError: it is missing or cannot be listed.
    """
    root = storage.absolute(folder)
    try:
        with os.scandir(root) as entries:
            names = [e.name for e in entries if not is_litter(e.name) and os.path.isdir(e.path)]
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror})") from error
    above = {name for name in names if _holds(os.path.realpath(os.path.join(root, name)), root)}
    for name in sorted(above):
        LOG.warning("%s: passed over %s: a link to a folder that holds it", folder, name)
    return sorted(set(names) - above, key=storage.text_of)


def _holds(folder: str, other: str) -> bool:
    return other == folder or other.startswith(folder.rstrip("/") + "/")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
