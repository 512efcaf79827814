"""What segswap-discover does: what repeats in a collection of images, as masks, groups and a page.

OUT holds, when it is done:

    index.html            the groups, to look at
    groups.json           the same for programs; see `pipelines.discovery.discovered.as_record`
    masks/00012.png       what image 12 shares with the one thing that is shared most: 0 and 255
    groups/01/00012.png   image 12's region of the first group
    pictures/00012.jpg    small copies for the page
    discovery.json        what the work was done with
    index/, index-mirrored/, pairs/    features and matches: what a run that goes on needs
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.command.devices import device_of, out_of_memory_says
from pipelines.command.outputs import GO_ON, check_folder
from pipelines.command.progress import Progress
from pipelines.command.stopping import SHARDS, Stopping, stopping
from pipelines.command.workers import Run
from pipelines.discovery.config import DiscoverConfig
from pipelines.discovery.discovered import write_results
from pipelines.discovery.results import Discovered
from pipelines.search.index import build_index, collect, say_skipped
from segswap.discovery.discovery import find_repeats
from segswap.discovery.links import Links, sharing
from segswap.discovery.pairing import check_enough, chosen_pairs, match_pairs, model_predict
from segswap.discovery.settings import Same, Settings, same_for
from segswap.files.locks import is_empty, locked
from segswap.files.records import read_record
from segswap.files.storage import absolute, sweep, write_atomically
from segswap.files.stores import no_room_says
from segswap.models.hub import find_model, fingerprint
from segswap.models.model import Model, load
from segswap.search.index import Index
from segswap.search.index_files import state_of

FORMAT = 2  # of discovery.json, the files of pairs and groups.json
KEY = "discovery.json"
_UNIT = 32  # pairs: the unit of work and of retry


def discover(config: DiscoverConfig) -> int:
    """What the command does: match the collection, find what repeats, and say where it is.

    Raises:
        ValueError, RuntimeError: see `find_in`.
    """
    print(find_in(config))
    return 0


def find_in(config: DiscoverConfig) -> Discovered:
    """Match the collection, find what repeats, and write it down.

    Raises:
        ValueError: images, model or OUT cannot be used, or OUT holds other work.
        RuntimeError: Ray does not start, the hub cannot be reached, memory runs out, or another
            command is at work in OUT.
    """
    check_folder("--out", config.out)
    out = Path(absolute(config.out))
    with locked(out):
        return _find_in(config, out)


def _find_in(config: DiscoverConfig, out: Path) -> Discovered:
    """See `find_in`; no other command is at work in the folder."""
    images, passed = collect(config.images)
    model = Path(absolute(find_model(config.model)))
    settings = config.settings(same_for(load(model), config.same))
    _begin(out, _key(config, images, model, settings.same))
    try:
        with no_room_says(str(out), GO_ON), config.running.started() as run:
            plain, mirrored = (_index(config, images, passed, out, flip) for flip in (False, True))
            say_skipped(plain.skipped)
            check_enough(len(plain), plain.skipped)
            pairs = chosen_pairs(plain.descriptors, mirrored.descriptors, config.neighbours)
            with stopping() as signals:
                links = _match(config, out, model, pairs, settings, run, signals)
                whole, groups = find_repeats(links, settings)
                record = {
                    "format": FORMAT, "model": config.model,
                    "settings": {**asdict(settings), "neighbours": config.neighbours},
                }  # fmt: skip
                write_results(out, config.images, plain, whole, groups, record, run)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from None
    finally:
        sweep(out / "pairs")  # of workers that were killed in the middle of a file
    return Discovered.read(out, len(pairs))


def _index(
    config: DiscoverConfig, images: list[str], passed: dict[str, str], out: Path, mirrored: bool
) -> Index:
    return build_index(
        images, config.model, out / ("index-mirrored" if mirrored else "index"), config.running,
        device=config.device, mirrored=mirrored, passed=passed,
    )  # fmt: skip


# --- what the work is done with ------------------------------------------------------------------


def _key(config: DiscoverConfig, images: list[str], model: Path, same: Same) -> dict[str, Any]:
    """What the files of pairs depend on."""
    states = [(image, state_of(image)) for image in images]
    return {
        "format": FORMAT,
        "model": config.model,
        "fingerprint": fingerprint(model),
        "images": f"{len(images)} ({hashlib.sha256(json.dumps(states).encode()).hexdigest()[:12]})",
        "neighbours": config.neighbours,
        "same": same,
    }


def _begin(out: Path, key: dict[str, Any]) -> None:
    """Make the folder, or check that what is there is the same work.

    Raises:
        ValueError: it is other work; what differs is named.
    """
    path = out / KEY
    if not path.is_file():
        if not is_empty(out):
            raise ValueError(f"--out {out} is not empty and not of this command; choose another")
        (out / "pairs").mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(key, indent=1).encode())
        return
    try:
        there = read_record(path, {})
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete {out}") from error
    # The same model may have got another name.
    changed = [name for name in key if name != "model" and there.get(name) != key[name]]
    if changed:
        if "fingerprint" in changed:
            changed.insert(0, "model")
        said = "; ".join(f"{name}: was {there.get(name)}, is {key[name]}" for name in changed)
        raise ValueError(
            f"{out} was begun with other settings ({said}); use those, choose another --out, or "
            "delete it"
        )


# --- pairs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairsTask:
    """Pairs of images to be matched: their numbers in the indexes, the results' folder, by which
    model, and what counts as the same.
    """

    out: Path
    number: int
    pairs: tuple[tuple[int, int], ...]
    model: Path
    device: str
    settings: Settings

    @property
    def path(self) -> Path:
        """The file of what these pairs share."""
        return self.out / "pairs" / f"pairs-{self.number:06d}.npz"


def match_task(task: PairsTask) -> int:
    """Match pairs and write what they share; returns how many they are."""
    model, plain, mirrored = _opened(task.out, task.model, task.device)
    with out_of_memory_says("use --device cpu, or fewer --workers"):
        links = match_pairs(task.pairs, model_predict(model, plain, mirrored), task.settings)
    links.save(task.path)
    return len(task.pairs)


@lru_cache(maxsize=1)
def _opened(out: Path, model: Path, device: str) -> tuple[Model, Index, Index]:
    """A worker's model and indexes, opened once."""
    indexes = Index.open(out / "index"), Index.open(out / "index-mirrored")
    return load(model, device_of(device)), *indexes


def _match(
    config: DiscoverConfig, out: Path, model: Path, pairs: list[tuple[int, int]],
    settings: Settings, run: Run, signals: Stopping,
) -> Links:  # fmt: skip
    """Match the pairs that no earlier run has matched, and read all that share something."""
    tasks = [
        PairsTask(out, number, tuple(pairs[first : first + _UNIT]), model, config.device, settings)
        for number, first in enumerate(range(0, len(pairs), _UNIT))
    ]
    missing = [task for task in tasks if not task.path.exists()]
    left = sum(len(task.pairs) for task in missing)
    progress = Progress("match", len(pairs), "pairs", len(pairs) - left)
    with signals.in_order(SHARDS):
        for done in run(match_task, signals.until_asked(missing), on_gpu=True):
            left -= done
            progress.add(done)
    progress.close()
    if left or signals.asked:
        raise KeyboardInterrupt
    return Links.joined([_found(task) for task in tasks])


def _found(task: PairsTask) -> Links:
    """Those of a task's pairs that share something; in most collections few do."""
    links = Links.load(task.path)
    if not np.array_equal(links.pairs, np.array(task.pairs)):
        raise ValueError(f"{task.path} holds other pairs than those that were chosen; delete it")
    return links[np.flatnonzero(sharing(links))]
