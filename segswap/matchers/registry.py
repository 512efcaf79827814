"""Matchers by name: each is a module of this room, or a folder with a module of its own name."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import segswap.matchers

if TYPE_CHECKING:
    from segswap.matchers.base import Matcher

# Modules of the room that are no matchers.
SHARED = frozenset(
    {
        "attention", "base", "confidence", "encoding", "losses", "registry", "sampling", "warps",
        "windows",
    }
)  # fmt: skip


def names() -> list[str]:
    """Names of all matchers, sorted; none is imported."""
    found = (module.name for module in pkgutil.iter_modules(segswap.matchers.__path__))
    return sorted(name for name in found if name not in SHARED)


def check_name(name: str) -> None:
    """Raise ValueError where no matcher has this name; the nearest one is named."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown matcher {name!r}; expected one of {', '.join(known)}{hint}")


def matcher_class(name: str) -> "type[Matcher]":
    """A matcher's class.

    Raises:
        ValueError: no matcher has this name.
    """
    from segswap.matchers.base import Matcher  # with torch, which a list of names does not need

    check_name(name)
    module = importlib.import_module(f"segswap.matchers.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"segswap.matchers.{name}.{name}")
    (own,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Matcher)
        and value.__module__ == module.__name__
    )
    return own


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options of a matcher: the parameters of its `__init__`, with types and defaults."""
    signature = inspect.signature(matcher_class(name).__init__)
    return {key: value for key, value in signature.parameters.items() if key != "self"}


def build(name: str, **options: Any) -> "Matcher":
    """A new matcher by name.

    Raises:
        ValueError: no matcher has this name, or it has no such option.
    """
    unknown = options.keys() - options_of(name).keys()
    if unknown:
        raise ValueError(f"the {name} matcher has no option {', '.join(sorted(unknown))}")
    own = matcher_class(name)
    hints = get_type_hints(own.__init__)
    for key, value in options.items():
        if not _fits(value, hints[key]):
            raise ValueError(
                f"the {name} matcher's {key} is {value!r}; expected {_said(hints[key])}"
            )
    return own(**options)


def build_blank(name: str, options: Mapping[str, Any]) -> "Matcher":
    """A matcher by name, for weights that are loaded afterwards: none is read from elsewhere.

    Args:
        options: without those that are not saved.

    Raises:
        ValueError: as `build`, or one of them says where weights come from: no saved model has it.
    """
    new = matcher_class(name).not_saved
    if told := sorted(options.keys() & set(new)):
        raise ValueError(
            f"the options of a saved {name} matcher hold {', '.join(told)}, which says where a new "
            "one's weights come from; take it out"
        )
    return build(name, **dict.fromkeys(new), **options)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an option's type: a plain one, a choice, or any of several."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is tuple:
        return isinstance(value, tuple | list)
    if not isinstance(kind, type):
        return True
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _said(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return str(getattr(hint, "__name__", hint))
