"""The flags that a matcher brings to segswap-train: its options, and the weights of its losses."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from segswap.matchers.registry import check_name, matcher_class, options_of
from segswap.models.hub import SETTINGS, find_model, read_settings

DEFAULT_MATCHER = "correlation"
Flags = tuple[type, type]  # of options, of losses


def matcher_of(matcher: str | None, start: str | None) -> str:
    """The name of the matcher that is trained: the one that is asked for, or that of the model to
    start from, or the default.

    Args:
        matcher: the name that is asked for, if any.
        start: the model of --init, or the run that is resumed.

    Raises:
        ValueError: there is no such matcher or model, or the model is another matcher.
        RuntimeError: the hub with the model cannot be reached.
    """
    if matcher is not None:
        check_name(matcher)
    if start is None:
        return matcher or DEFAULT_MATCHER
    # The weights of a run that is resumed are in its checkpoint.
    folder = Path(start) if (Path(start) / SETTINGS).is_file() else find_model(start)
    try:
        there = read_settings(folder)["matcher"]
        check_name(there)
    except ValueError as error:
        raise ValueError(f"{folder / SETTINGS} cannot be read: {error}") from error
    if matcher not in (None, there):
        raise ValueError(
            f"--matcher is {matcher}, but the model of {start} is {there}; leave out --matcher, or "
            "choose another model"
        )
    return str(there)


def start_of(out: str, resume: bool, init: str | None) -> str | None:
    """The model that training goes on from: the run's own where there is one to resume, else that
    of --init.
    """
    if not resume:
        return init
    return out if (Path(out) / SETTINGS).is_file() else init


@lru_cache
def flags_of(matcher: str) -> Flags:
    """Dataclasses of a matcher's flags.

    An option that is not given is None, but for switches, which have their default; its help is its
    line in the matcher's docstring. The weight of a loss term NAME is loss_NAME.
    """
    own = matcher_class(matcher)
    hints = get_type_hints(own.__init__, include_extras=True)
    options: list[Any] = [
        (name, bool, field(default=option.default)) if hints[name] is bool
        else (name, hints[name] | None, field(default=None))
        for name, option in options_of(matcher).items()
    ]  # fmt: skip
    described = make_dataclass("Options", options, frozen=True, namespace=_pickled(matcher, 0))
    about = (inspect.getdoc(own) or "").partition("Args:\n")[2].partition("\n\n")[0]
    described.__doc__ = f"Options of the {matcher} matcher\n\nAttributes:\n{about}"
    weights: list[Any] = [
        (f"loss_{term.name}", _weight_of(term.about), field(default=term.weight))
        for term in own.terms
    ]  # fmt: skip
    losses = make_dataclass("Losses", weights, frozen=True, namespace=_pickled(matcher, 1))
    losses.__doc__ = f"What the {matcher} matcher learns from; a weight of 0 switches a loss off"
    return described, losses


def _pickled(matcher: str, which: int) -> dict[str, Any]:
    """How an instance reaches other processes, which make the class themselves."""
    return {"__reduce__": lambda self: (_restored, (matcher, which, dict(vars(self))))}


def _restored(matcher: str, which: int, values: dict[str, Any]) -> Any:
    return flags_of(matcher)[which](**values)


def _weight_of(about: str) -> Any:
    return Annotated[float, tyro.conf.arg(help=f"Weight of the loss on {about}.")]


@dataclass(frozen=True)
class Given:
    """What a command line says that decides on the flags that it may have."""

    matcher: str | None
    start: str | None
    help_asked: bool

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Given":
        """Found without knowing the other flags; the last of several counts."""
        found: dict[str, str] = {}
        for position, argument in enumerate(arguments):
            flag, equals, value = argument.partition("=")
            if flag in ("--matcher", "--init", "--out"):
                following = arguments[position + 1 : position + 2]
                found[flag] = value if equals else "".join(following)
        asked = bool({"-h", "--help"} & set(arguments))
        start = start_of(found.get("--out", ""), "--resume" in arguments, found.get("--init"))
        return cls(found.get("--matcher"), start, asked)


def filled(matcher: str, options: Any, losses: Any) -> tuple[Any, Any]:
    """Options and weights of losses of a matcher, given by name or as `flags_of` describes them, in
    the latter form.

    Args:
        options: by name; what is left out has its default.
        losses: weights by the terms' names, likewise.

    Raises:
        ValueError: the matcher has no such option or term.
    """
    kinds = flags_of(matcher)
    if isinstance(losses, Mapping):
        losses = {f"loss_{name}": weight for name, weight in losses.items()}
    made = []
    for kind, given in zip(kinds, (options, losses), strict=True):
        if isinstance(given, Mapping):
            known = kind.__dataclass_fields__.keys()  # type: ignore[attr-defined]
            if unknown := sorted(given.keys() - known):
                raise ValueError(
                    f"the {matcher} matcher has no {', '.join(unknown)}; it has {', '.join(known)}"
                )
            given = kind(**given)
        made.append(given)
    return made[0], made[1]
