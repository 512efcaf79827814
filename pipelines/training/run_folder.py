"""The folder of a training run: what the run is, so that another is not mistaken for it."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from pipelines.command import outputs
from pipelines.command.messages import LOG
from pipelines.training.config import TrainConfig
from segswap.batches.picture import pictures_hash
from segswap.data.manifest import MANIFEST, datasets_with
from segswap.files import storage
from segswap.files.hashes import file_hash
from segswap.files.locks import is_empty
from segswap.files.records import read_record
from segswap.training.checkpoints import STATE

RUN = "run.json"
SETTINGS = "config.yaml"
# What may differ when a run is resumed: where it runs and what it costs, not what it computes.
_MACHINE = ("resume", "workers", "device", "compile", "address")


def identity_of(config: TrainConfig) -> dict[str, Any]:
    """What a run is: its settings, and its data by the hash of their manifests or of what is told
    of pictures.

    Raises:
        DatasetError: a dataset is unfinished, or none has pairs to train on.
        ValueError: pictures of kinds cannot be used.
    """
    if config.learned:
        datasets_with(config.learned, "train")
    datasets = {path: file_hash(storage.join(path, MANIFEST)) for path in config.data}
    datasets |= {pictures.source: pictures_hash(pictures) for pictures in config.pictures}
    # A source may be used in both ways.
    datasets |= {f"{p.source}, masks": pictures_hash(p) for p in config.foregrounds}
    return {"config": _settings(config), "datasets": datasets}


def _settings(config: TrainConfig) -> dict[str, Any]:
    return {k: v for k, v in config.resolved.items() if k not in ("data", "out", *_MACHINE)}


def check_folder(name: str, resume: bool, identity: dict[str, Any], instead: str = "") -> None:
    """Refuse to write over another run, or to go on with one. A run may be made longer: --steps may
    be more than they were.

    Args:
        name: of the folder, as --out gave it.
        resume: whether a run is to go on.
        identity: what the run is: its settings as config, and datasets, of which the names may
            change.
        instead: what to do where the run is another one, beside choosing another folder.

    Raises:
        ValueError: the folder holds something else; differing settings are named.
    """
    out = Path(name)
    outputs.check_folder("--out", name)
    if not resume:
        if not is_empty(out):
            if not (out / RUN).exists():
                raise ValueError(f"--out {out} holds other files; choose another folder")
            if any(out.rglob(STATE)):  # not of a run that was killed before its first checkpoint
                raise ValueError(
                    f"--out {out} holds a run; --resume goes on with it, or choose another folder"
                )
        return
    if not (out / RUN).is_file():
        raise ValueError(f"--out {out} holds no run to resume")
    # By content, so that datasets may be moved; their order decides on the order of the pairs.
    old, new = _comparable(_read_run(out / RUN)), _comparable(identity)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed == ["steps"] and isinstance(old["steps"], int) and new["steps"] > old["steps"]:
        LOG.info(
            "--steps was %d, is %d: the run goes further, its learning rate as in one of so many",
            old["steps"], new["steps"],
        )  # fmt: skip
    elif changed:
        differences = "; ".join(f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in changed)
        raise ValueError(
            f"{out} holds a run of another configuration: {differences}; resume it with what it "
            f"was begun with (--steps alone may be more), or start anew in another --out{instead}"
        )


def _read_run(path: Path) -> dict[str, Any]:
    try:
        return read_record(path, {"config": (dict,), "datasets": (dict,)})
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}; start a new run") from error


def _comparable(run: dict[str, Any]) -> dict[str, Any]:
    return run["config"] | {"datasets": list(run["datasets"].values())}


def describe(name: str, identity: dict[str, Any], device: torch.device, devices: int = 1) -> None:
    """Write settings, datasets and environment of a run into its folder.

    Args:
        name: of the folder.
        identity: see `check_folder`.
        device: what it is trained on.
        devices: how many of them.
    """
    out = Path(name)
    out.mkdir(parents=True, exist_ok=True)
    environment = {
        **{name: version(name) for name in ("segswap", "torch", "timm", "numpy")},
        "python": platform.python_version(), "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "devices": devices,
    }  # fmt: skip
    run = json.dumps(identity | {"environment": environment}, indent=1)
    storage.write_atomically(out / RUN, run.encode())
    storage.write_atomically(out / SETTINGS, yaml.safe_dump(identity["config"]).encode())
