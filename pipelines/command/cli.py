"""From a command line to a frozen config, and from user errors to a message and an exit status."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from pipelines.command.memory import keep_memory

Config = TypeVar("Config")
# Metadata of a config's field that only groups flags for --help: its own name stands nowhere.
FLAT = {"flat": True}


def run(
    config_type: type[Config] | Callable[[Sequence[str]], type[Config]],
    job: Callable[[Config], int | None],
) -> None:
    """Parse the process's arguments, run the job, and exit.

    Args:
        config_type: what is parsed; or gives it for the arguments, where these decide on the flags.
        job: what the command does; returns its exit status, None for 0.

    Exit status: what the job returns (0 for None), 1 for an error of the user's input or of the
    machine, 2 for a malformed command line, 130 after an interrupt.
    """
    keep_memory()
    try:
        sys.exit(job(parse(config_type, sys.argv[1:])) or 0)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        sys.exit(130)


def parse(
    config_type: type[Config] | Callable[[Sequence[str]], type[Config]], arguments: Sequence[str]
) -> Config:
    """A config from command-line arguments; for `config_type` see `run`.

    `--config FILE` names a YAML file whose keys are flags; flags on the command line win. Unknown
    flags and keys alike end with a message that names the nearest known one.
    """
    given = list(arguments)
    files: list[str] = []
    for position in reversed(range(len(given))):
        flag, equals, value = given[position].partition("=")
        if flag == "--config":
            if not equals and position + 1 == len(given):
                raise ValueError("--config needs the path of a YAML file")
            files.insert(0, value if equals else given[position + 1])
            del given[position : position + (1 if equals else 2)]
    read = [flag for path in files for flag in flags_from_yaml(Path(path))]
    # A file's flags come last and are passed over where the command line has them too.
    own = {_positive(argument.partition("=")[0]) for argument in given}
    extra = [part for flag in read if _positive(flag[0]) not in own for part in flag]
    words = [*given, *extra]
    if not isinstance(config_type, type):
        try:
            config_type = config_type(words)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
    return tyro.cli(config_type, args=words)


def _positive(flag: str) -> str:
    """A flag's one name: long-name and long_name are the same, and so are a switch's two."""
    return flag.replace("_", "-").replace("--no-", "--")


def flags_from_yaml(path: Path) -> list[list[str]]:
    """The flags that a YAML file of settings stands for, each as a list of arguments."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {path}: expected settings as `name: value`, found {content!r}")
    return list(_flags(content, ""))


def _flags(settings: dict[str, Any], prefix: str) -> Any:
    for key, value in settings.items():
        name = prefix + str(key).replace("_", "-")
        if isinstance(value, dict):
            yield from _flags(value, f"{name}.")
        elif isinstance(value, bool):
            yield [f"--{name}" if value else _negated(name)]
        elif isinstance(value, list | tuple):
            yield [f"--{name}", *map(str, value)]
        elif value is not None:
            yield [f"--{name}", str(value)]


def _negated(name: str) -> str:
    *groups, last = name.split(".")
    return "--" + ".".join([*groups, f"no-{last}"])


def as_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, keys as in a --config file."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = _plain(getattr(config, field.name))
        plain.update(value if field.metadata.get("flat") else {field.name: value})
    return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    return list(value) if isinstance(value, tuple) else value
