"""Jobs from Python: what the commands do, with results and exceptions in place of prints and exit
statuses.

Settings are keyword arguments of the flags' names: --shard-pairs 100 is shard_pairs=100, a switch
is True or False, several values are a list, and those of a group with a name are a mapping
(one={"rotation": 30}). Messages go to the logger "segswap", progress to standard error.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.command.keywords import config_of
from pipelines.command.messages import LOG
from segswap.files.extras import need_extra

if TYPE_CHECKING:
    from pipelines.discovery.results import Discovered
    from pipelines.training.trained import TrainedRun
    from segswap.data.dataset import Dataset

PathLike = str | os.PathLike[str]


def generate(out: PathLike, *, progress: bool = True, **settings: Any) -> "Dataset":
    """Make a dataset of pairs, finish it, or with extend=True add pairs to it.

    Args:
        out: folder or fsspec URL of the dataset.
        progress: whether progress and messages below warnings are shown.
        settings: see `segswap-generate --help`: images, annotations, pairs, workers, ...

    Returns:
        The dataset, opened.

    Raises:
        TypeError: there is no such setting; the message names the nearest one.
        ValueError: a setting, an input or OUT cannot be used.
        RuntimeError: no acceptable pair could be drawn, or the dataset is made, but more of the
            inputs could not be used than max_skipped allows.
        MissingExtraError: a package of the extra `generate` is not installed.
    """
    need_extra("pipelines.generate", "generate")
    from pipelines.generation.config import GenerateConfig
    from pipelines.generation.job import make
    from segswap.data.dataset import open_dataset

    config = config_of(GenerateConfig, {"out": out, **settings})
    if config.mode.dry_run or config.mode.only is not None:
        raise ValueError("dry_run and only are of the command segswap-generate; leave them out")
    with _showing(progress):
        made = make(config)
    if made.lost:
        raise RuntimeError(
            f"{out} is made, but {'; '.join(made.lost)}; a larger max_skipped lets that pass"
        )
    return open_dataset(out)


def train(*data: PathLike, out: PathLike, progress: bool = True, **settings: Any) -> "TrainedRun":
    """Train a matcher, or with resume=True go on training.

    Args:
        data: datasets to learn from, folders or URLs; none with live, category_images or
            masked_images.
        out: folder of the run.
        progress: whether progress and messages below warnings are shown.
        settings: see `segswap-train --help`, and `segswap-train --matcher NAME --help` for those
            of a matcher: steps, init, batch, loss_mask, ...

    Returns:
        The run: its folder, history and best scores, and the model by `load()`.

    Raises:
        TypeError: there is no such setting; the message names the nearest one.
        ValueError: a setting or a dataset cannot be used, or OUT holds another run.
        RuntimeError: the loss is not finite, or the device's memory too small.
        KeyboardInterrupt: interrupted; resume=True goes on from the checkpoint.
        MissingExtraError: a package of the extra `train` is not installed.
    """
    need_extra("pipelines.train", "train")
    from pipelines.training.config import command_line
    from pipelines.training.job import run_training

    # The matcher's own settings are those of the matcher that these name.
    words = ["--out", os.fspath(out), *(["--resume"] if settings.get("resume") else [])]
    for name in ("matcher", "init"):
        if settings.get(name) is not None:
            words += [f"--{name}", os.fspath(settings[name])]
    config = config_of(command_line(words), {"data": data, "out": out, **settings})
    with _showing(progress):
        run = run_training(config)
    if not run.finished:
        raise KeyboardInterrupt(f"stopped at step {run.step}; resume=True goes on from there")
    return run


def discover(
    *images: PathLike, out: PathLike, progress: bool = True, **settings: Any
) -> "Discovered":
    """Find what repeats in a collection of images, or go on where an earlier call stopped.

    Args:
        images: folders of images, with those below them, and image files.
        out: folder of the results.
        progress: whether progress and messages below warnings are shown.
        settings: see `segswap-discover --help`: model, neighbours, same, workers, ...

    Returns:
        The groups with their members and masks, and the page.

    Raises:
        TypeError: there is no such setting; the message names the nearest one.
        ValueError: a setting, images, model or OUT cannot be used.
        RuntimeError: Ray does not start, the hub cannot be reached, or memory runs out.
        MissingExtraError: a package of the extra `search` is not installed.
    """
    need_extra("pipelines.discover", "search")
    from pipelines.discovery.config import DiscoverConfig
    from pipelines.discovery.job import find_in

    config = config_of(DiscoverConfig, {"images": images, "out": out, **settings})
    with _showing(progress):
        return find_in(config)


@contextmanager
def _showing(progress: bool) -> Iterator[None]:
    """Show progress and messages below warnings, or do not; as --quiet does."""
    before = LOG.level
    if not progress:
        LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOG.setLevel(before)
