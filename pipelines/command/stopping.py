"""Ctrl-C and SIGTERM in two steps, for all commands: end in order, and then at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")
STATUS = 130  # of an interrupted command
# What the first signal is answered with where work is shards, and where it is training.
SHARDS = "finishing the shards under way"
STEP = "stopping after this step"
_HANDLED = (signal.SIGINT, signal.SIGTERM)
_ONE_PRESS = 0.3  # seconds within which a second signal is the first one, sent on by a parent
_NO_MORE = 0  # no signal has this number
_GRACE = 5.0  # seconds after the second signal until the process is ended by force


class Stopping:
    """What signals have asked for.

    The first one raises KeyboardInterrupt, or ends work in steps in order (`in_order`).
    The second one raises KeyboardInterrupt always; where that does not end a command, because it
    waits for compiled code or for other processes, it is ended by force some seconds later. The
    first is answered on standard error at once, whatever the process is doing.

    Attributes:
        asked: whether work in steps is to end.
    """

    def __init__(self, by_force: bool = False) -> None:
        self.asked, self._by_force = False, by_force
        self._steps = ""  # what is finished before work in steps ends
        self._first: float | None = None
        self._left = threading.Event()

    @contextmanager
    def in_order(self, saying: str) -> Iterator[Callable[[], bool]]:
        """Work in steps: the first signal sets `asked`, at which the work has to look; the value
        does so.

        Args:
            saying: what the first signal is answered with, as in "finishing the step".
        """
        before, self._steps = self._steps, saying
        try:
            yield lambda: self.asked
        finally:
            if self._first is None:  # else its answer may still be to be given
                self._steps = before

    def until_asked(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, up to the first signal."""
        for item in items:
            if self.asked:
                break
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as compiled code returns to Python."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
            if self._steps:
                self.asked = True
                return
        elif now - self._first < _ONE_PRESS:
            return
        raise KeyboardInterrupt

    def _wait_for_the_rest(self) -> None:
        """Until no parent sends the first signal on any more: the handlers put back would end this
        process in the middle of its end.
        """
        if self._first is not None:
            time.sleep(max(0.0, self._first + _ONE_PRESS - time.monotonic()))

    def _watch(self, signals: int) -> None:
        """In a thread: answer signals, which the system writes to a pipe, and end what hangs."""
        first: float | None = None
        while (received := os.read(signals, 1)[0]) != _NO_MORE:
            if received not in _HANDLED:
                continue
            if first is None:
                first = time.monotonic()
                # Not print: the signal may have come in the middle of one.
                answer = f"\n{self._steps or 'stopping'}; once more to stop at once\n"
                os.write(2, answer.encode())
            elif time.monotonic() - first >= _ONE_PRESS:
                if self._by_force and not self._left.wait(_GRACE):
                    _end_now()
                return


def _end_now() -> None:
    """End this process, and those that it forked, whatever they are doing."""
    import multiprocessing  # not for each --help

    for child in multiprocessing.active_children():
        child.kill()
    os._exit(STATUS)


_entered: Stopping | None = None


@contextmanager
def stopping(by_force: bool = False) -> Iterator[Stopping]:
    """While it is entered, signals end the work as `Stopping` says; within another, it is that one.

    Python lets the main thread alone set handlers; any other, as a notebook's, keeps its own.

    Args:
        by_force: end this process where the second signal does not; of a command, not of a notebook
            or a program that has other work.
    """
    global _entered
    if _entered is not None or threading.current_thread() is not threading.main_thread():
        yield _entered or Stopping()
        return
    _entered = Stopping(by_force)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watching = threading.Thread(target=_entered._watch, args=[reading], daemon=True)
    watching.start()
    pipe_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _entered._handle) for number in _HANDLED}
    try:
        yield _entered
    finally:
        _entered._wait_for_the_rest()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        _entered._left.set()
        _entered = None
        os.write(writing, bytes([_NO_MORE]))
        watching.join()
        os.close(reading)
        os.close(writing)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back handlers of signals that the block sets, as Ray does."""
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _forked() -> None:
    """A forked process has its own signals: what it receives is no answer to this one's."""
    global _entered
    if _entered is not None:
        _entered = None
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forked)
