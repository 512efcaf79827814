"""Where a model is: a folder, inside the package, or on the Hugging Face hub."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

from segswap.files.hashes import file_hash
from segswap.files.records import ABSENT, NONE, Schema, read_record
from segswap.files.storage import PathLike

DEFAULT_MODEL = "segswap-base"
MODEL_FORMAT = 1  # of model.json; other ones are refused
WEIGHTS = "model.safetensors"
SETTINGS = "model.json"
CARD = "README.md"
SCORES = "scores.json"  # of a training run: what the weights beside it reached on its val pairs
SHARED = "backbone"  # in model.json: the SHA-256 of the file that the model's backbone is in
_SCHEMA: Schema = {
    "matcher": (str,), "options": (dict,), "size": (int,), SHARED: (str, NONE, ABSENT),
}  # fmt: skip
_SHIPPED = Path(__file__).parent
# Neither "." nor ".." is a user: that is a path.
_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w.][\w./-]*))?")


def shipped() -> list[str]:
    """Names of the models inside the package, sorted."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{SETTINGS}"))


def find_model(where: PathLike) -> Path:
    """The folder of a model; one on the hub is downloaded first, or taken from the hub's cache.

    Args:
        where: in this order, an existing folder, the name of a model inside the package, or
            "user/name" or "user/name@revision" on the Hugging Face hub. From there come weights,
            settings and card alone, and nothing of it is run.

    Raises:
        ValueError: there is none, or no model in it.
        RuntimeError: the hub cannot be reached, or fails.
    """
    name = os.fspath(where)
    folder = Path(name)
    if folder.is_dir():
        return _checked(folder)
    if folder.is_file():
        raise ValueError(f"{name} is a file; expected the folder of a model")
    if name in shipped():
        return _checked(_SHIPPED / name)
    if match := _HUB_ID.fullmatch(name):
        return _checked(_download(match["id"], match["revision"]))
    near = difflib.get_close_matches(name, shipped(), n=1)
    raise ValueError(
        f"no model {name!r}: it is no folder, no model of this package "
        f"({', '.join(shipped()) or 'there is none'}) and no hub id (user/name)"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """What a model's settings hold: matcher, options, size, and what else `MODEL_FORMAT` names.

    Raises:
        ValueError: they are not JSON, or of another format, or a key is missing or of another type.
        OSError: they cannot be read.
    """
    path = folder / SETTINGS
    written = read_record(path, {}).get("format", MODEL_FORMAT)
    if written != MODEL_FORMAT:
        raise ValueError(
            f"it is of format {written!r}, and this version of segswap reads {MODEL_FORMAT}"
        )
    return read_record(path, _SCHEMA)


def fingerprint(folder: Path) -> str:
    """What two models with the same answers have in common: hashes of weights and settings, which
    hold that of a shared backbone.
    """
    return " ".join(file_hash(folder / name) for name in (WEIGHTS, SETTINGS))


def _checked(folder: Path) -> Path:
    missing = [name for name in (SETTINGS, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} holds no model ({' and '.join(missing)} missing); expected the folder of a "
            "run of segswap-train"
        )
    return folder


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download  # models in folders have no use for it

    said = f"there is no folder {name}, and on the Hugging Face hub"
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=[SETTINGS, WEIGHTS, CARD])
        )
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{said} {name} is gated; ask for access at https://huggingface.co/{name}, "
            "then log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"{said} there is no model {name}, or it is private; check the name, or log in with "
            "`hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{said} {name} has no revision {revision!r}") from error
    except errors.HFValidationError as error:
        raise ValueError(f"{said} {name} cannot be a model's name: {error}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise RuntimeError(
            f"{said} {name} cannot be looked up: the hub is not reached, and this machine keeps no "
            "copy; check the path, the connection, or whether HF_HUB_OFFLINE is set"
        ) from error
    except Exception as error:  # a transfer raises many kinds
        raise RuntimeError(f"{said} {name} cannot be fetched: {error}; try again later") from error
