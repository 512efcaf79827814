"""From a command line to a frozen config, and from user errors to a message and an exit status."""

import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
import yaml

from pipelines.command.memory import keep_memory
from pipelines.command.messages import LOG, escape_what_cannot_be_shown, said
from pipelines.command.stopping import STATUS, stopping
from segswap.files.extras import MissingExtraError, need_extra
from segswap.files.limits import allowing
from segswap.files.stores import NO_ROOM

Config = TypeVar("Config")
# What is parsed; or gives it for the arguments, where these decide on the flags.
ConfigType = type[Config] | Callable[[Sequence[str]], type[Config]]
# Metadata of a config's field that only groups flags for --help: its own name stands nowhere.
FLAT = {"flat": True}
_Files = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE")]
_Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclasses.dataclass(frozen=True)
class Common:
    """What every segswap command has; docs/commands.md says more"""

    config: _Files = ()
    """A YAML file of settings, flags without their dashes; what the command line says wins."""
    print_config: _Switch = False
    """Print all settings as such a file, and do nothing else."""
    quiet: _Switch = False
    """Say warnings and errors alone, and show no progress; results are printed all the same."""
    verbose: _Switch = False
    """Say the settings, the time that was taken, and where in the program an error came up, too."""
    max_megapixels: int | None = None
    """The largest picture that is read; by default 100, or as SEGSWAP_MAX_MEGAPIXELS says. Reading
    a megapixel takes 3 MB of memory as JPEG, and up to 25 MB in other formats, in each process."""
    version: _Switch = False
    """Print the version, and do nothing else."""

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise ValueError("--quiet and --verbose are opposites; give one of them")
        if self.max_megapixels is not None and self.max_megapixels < 1:
            raise ValueError(f"--max-megapixels is {self.max_megapixels}; expected at least 1")

    @property
    def level(self) -> int:
        """Of the messages that are said."""
        return logging.WARNING if self.quiet else logging.DEBUG if self.verbose else logging.INFO


def run(
    config_type: ConfigType[Config], job: Callable[[Config], int | None],
    extras: Sequence[str] = (),
) -> None:  # fmt: skip
    """Parse the process's arguments, run the job, and exit.

    Args:
        config_type: what is parsed.
        job: what the command does; returns its exit status, None for 0.
        extras: of segswap, without which there is nothing to run.

    Exit status: what the job returns (0 for None), 1 for an error of the user's input or of the
    machine, 2 for a malformed command line, 130 after an interrupt.
    """
    keep_memory()
    escape_what_cannot_be_shown()
    with said(), stopping(by_force=True), _threads_quiet():
        try:
            status = _status(config_type, job, extras)
        except KeyboardInterrupt:  # a second one, while the first is answered
            status = STATUS
    sys.exit(status)


def _status(
    config_type: ConfigType[Config], job: Callable[[Config], int | None], extras: Sequence[str]
) -> int:
    begun = time.monotonic()
    try:
        if "--version" in sys.argv[1:]:
            print(f"segswap {version('segswap')}")
            return 0
        config, common = _parsed(config_type, sys.argv[1:])
        LOG.setLevel(common.level)
        if common.print_config:
            print(as_yaml(config), end="")
            return 0
        LOG.debug("segswap %s with\n%s", version("segswap"), as_yaml(config))
        need_extra(_program(), *extras)
        with allowing(common.max_megapixels):
            status = job(config) or 0
        LOG.debug("%.1f s", time.monotonic() - begun)
    except (ValueError, RuntimeError, OSError, MissingExtraError) as error:
        LOG.debug("the error came up here:", exc_info=error)
        LOG.error("error: %s", _told(error))
        return 1
    except KeyboardInterrupt as stop:
        LOG.error("%s", str(stop) or "interrupted")
        return STATUS
    return status


@contextmanager
def _threads_quiet() -> Iterator[None]:
    """What a thread cannot write is raised in the main thread too, as TensorBoard's: said there."""
    before = threading.excepthook

    def failed(args: Any) -> None:
        if not isinstance(args.exc_value, OSError):
            before(args)

    threading.excepthook = failed
    try:
        yield
    finally:
        threading.excepthook = before


def _told(error: Exception) -> str:
    """An error's text, without the system's number."""
    if not isinstance(error, OSError) or not str(error).startswith("[Errno "):
        return str(error)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}" + ("; make room" if error.errno in NO_ROOM else "")


def _program() -> str:
    return Path(sys.argv[0]).name


def parse(config_type: ConfigType[Config], arguments: Sequence[str]) -> Config:
    """A config from command-line arguments; for `config_type` see `run`.

    `--config FILE` names a YAML file whose keys are flags; flags on the command line win. Unknown
    flags and keys alike end with a message that names the nearest known one.
    """
    return _parsed(config_type, arguments)[0]


def _parsed(config_type: ConfigType[Config], arguments: Sequence[str]) -> tuple[Config, Common]:
    given = list(arguments)
    files: list[str] = []
    for position in reversed(range(len(given))):
        flag, equals, value = given[position].partition("=")
        if flag == "--config":
            if not equals and position + 1 == len(given):
                raise _malformed("--config needs the path of a YAML file")
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
            raise _malformed(error) from error
    both = dataclasses.make_dataclass(
        "Command",
        [
            ("settings", Annotated[config_type, tyro.conf.arg(name="")]),
            ("common", tyro.conf.OmitArgPrefixes[Common]),
        ],
    )
    both.__doc__ = config_type.__doc__
    try:
        parsed: Any = tyro.cli(both, args=words, prog=_program())
    except ValueError as error:
        raise _malformed(error) from error
    return parsed.settings, parsed.common


def _malformed(said: object) -> SystemExit:
    LOG.error("error: %s", said)
    return SystemExit(2)


def _positive(flag: str) -> str:
    """A flag's one name: long-name and long_name are the same, and so are a switch's two."""
    return flag.replace("_", "-").replace("--no-", "--")


def flags_from_yaml(path: Path) -> list[list[str]]:
    """The flags that a YAML file of settings stands for, each as a list of arguments."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"--config {path}: expected settings as `name: value`, found {content!r}")
    for name in ("config", "version"):
        if name in content:
            raise ValueError(f"--config {path}: {name} is for the command line alone; leave it out")
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
    if isinstance(value, PurePath):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def as_yaml(config: Any) -> str:
    """A config as a --config file: all but what is positional."""
    hints = get_type_hints(type(config), include_extras=True)
    positional = {
        name for name, hint in hints.items()
        if tyro.conf.Positional in getattr(hint, "__metadata__", ())
    }  # fmt: skip
    settings = {key: value for key, value in as_dict(config).items() if key not in positional}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
