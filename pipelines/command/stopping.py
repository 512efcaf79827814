"""Ctrl-C and SIGTERM in two steps: stop after what is under way, then stop at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")


class Stopping:
    """While it is entered, signals end the work between two items and not within one.

    The first signal while items are handed out by `until_asked` ends them; a second one, or one at
    any other time, raises KeyboardInterrupt.

    Attributes:
        asked: whether the work is to end.
    """

    def __init__(self) -> None:
        self.asked = False
        self._handing_out = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopping":
        # Python lets the main thread alone set handlers; a notebook's thread keeps its own.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def until_asked(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, up to the first signal."""
        self._handing_out = True
        for item in items:
            if self.asked:
                break
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self._handing_out:
            raise KeyboardInterrupt
        self.asked = True
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nfinishing the shards under way; once more to stop at once\n")


@contextmanager
def noted_signals() -> Iterator[Callable[[], bool]]:
    """While it is entered, its value says whether SIGINT or SIGTERM has come; neither does more."""
    came: list[int] = []
    before = {}
    # Python lets the main thread alone set handlers; a notebook's thread keeps its own.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
