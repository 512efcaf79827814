"""Progress of long work: a bar on a terminal, a plain line at intervals elsewhere."""

import sys
import time

from tqdm import tqdm

from pipelines.command.messages import progress_wanted


class Progress:
    """Counts done items of a known total and says so on standard error, unless --quiet is given."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0, interval: float = 10.0):
        self._what, self._total, self._unit = what, total, unit
        self._done, self._first, self._interval = done, done, interval
        self._start = self._last = time.monotonic()
        self._shown = progress_wanted()
        self._bar = (
            tqdm(desc=what, total=total, initial=done, unit=f" {unit}", smoothing=0.05)
            if self._shown and sys.stderr.isatty()
            else None
        )

    def add(self, count: int, note: str = "") -> None:
        """Count finished items; `note` is a short text shown behind the figures."""
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._shown and (
            time.monotonic() - self._last >= self._interval or self._done >= self._total
        ):
            self._last = time.monotonic()
            self._print(note)

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()

    def _print(self, note: str) -> None:
        seconds = max(self._last - self._start, 1e-9)
        rate = (self._done - self._first) / seconds
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "unknown time"
        count = f"{self._what}: {self._done}/{self._total} {self._unit}"
        line = f"{count}, {rate:.1f}/s, {left} left  {note}".rstrip()
        print(line, file=sys.stderr, flush=True)
