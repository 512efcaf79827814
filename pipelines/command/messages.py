"""What is said beside results: by the logger "segswap", which commands have on standard error."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("segswap")


class _StandardError(logging.Handler):
    """Writes to what is standard error at the time: processes of a training exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def said(level: int = logging.INFO) -> Iterator[None]:
    """While it is entered, messages of this level and above stand on standard error, bare."""
    handler = _StandardError()
    before = LOG.level, LOG.propagate, LOG.handlers
    LOG.setLevel(level)
    # Handlers of the root, which other packages may add, would say it a second time.
    LOG.propagate, LOG.handlers = False, [handler]
    try:
        yield
    finally:
        LOG.propagate, LOG.handlers = before[1:]
        LOG.setLevel(before[0])


def escape_what_cannot_be_shown() -> None:
    """Have standard output and error write as an escape what their encoding has not, as names of
    files that are no UTF-8, or any but ASCII where the terminal knows no other.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")


def progress_wanted() -> bool:
    """Whether progress is shown: unless the logger's level is above INFO, as by --quiet."""
    return LOG.level <= logging.INFO
