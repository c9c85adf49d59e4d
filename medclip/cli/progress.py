"""Progress of a long run: two bars with remaining time on a terminal, a plain line now and then elsewhere.

What is said on standard error is never fatal: that it is full or closed must not cost a run.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TextIO, cast

from medclip.errors import printable
from medclip.wording import count as count_of
from medclip.wording import duration, number

_LINE_SECONDS = 10.0
_MOST_LINE_SECONDS = 60.0
_LINE_SHARE = 0.1


class PlainProgress:
    """One line for each tenth of a stage or each ten seconds, whichever comes first. Names no file.

    After ten minutes the lines of a stage come ever slower, down to one a minute: a run of days fills no log.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or forgiving_stderr()
        self._name, self._text, self._total, self._done, self._before = "", "", 0, 0, 0
        self._start = self._written_at = 0.0
        self._written_done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Begin a stage."""
        self._name, self._text, self._total = name, "", total
        self._done = self._before = self._written_done = done
        self._start = self._written_at = time.monotonic()
        before = f" ({number(done) if done < total else 'all'} of them done already)" if done else ""
        self.note(f"{name}: {number(total)}{before}" if total > 1 else name)

    def step(self, count: int = 1, text: str = "") -> None:
        """Count steps; now and then a line."""
        self._done += count
        self._text = text or self._text
        now = time.monotonic()
        since = now - self._written_at
        is_due = self._done - self._written_done >= max(1, self._total * _LINE_SHARE) and since >= 1.0
        gap = min(_MOST_LINE_SECONDS, max(_LINE_SECONDS, (now - self._start) / 60))
        if self._total > 1 and (self._done == self._total or is_due or since >= gap):
            left = (now - self._start) / max(1, self._done - self._before) * (self._total - self._done)
            rest = f", about {duration(left)} left" if self._done < self._total else ""
            beside = f"; {self._text}" if self._text else ""
            self.note(f"{self._name}: {number(self._done)} of {number(self._total)}{rest}{beside}")
            self._written_at, self._written_done = now, self._done

    def overall(self, done: int, total: int, studies: int) -> None:
        """Raise the total of the stage; its own lines are enough."""
        self._total = max(self._total, total)

    def note(self, text: str) -> None:
        """Write a line; a prompt, or the card of a pack, may hold what drives a terminal."""
        print(printable(text), file=self._stream, flush=True)


class BarProgress:
    """Two bars on a terminal: all files of the run, and the stage that is under way with its text below."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._bars = _bars(stream or forgiving_stderr())
        self._overall = self._stage = None
        self._total = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """Begin a stage."""
        if self._stage is not None:
            self._bars.remove_task(self._stage)
        self._stage, self._total = self._bars.add_task(name, total=total, completed=done, beside=""), total

    def step(self, count: int = 1, text: str = "") -> None:
        """Count steps of the stage."""
        if self._stage is not None:
            self._bars.update(self._stage, advance=count, **({"beside": text} if text else {}))

    def overall(self, done: int, total: int, studies: int) -> None:
        """Move the bar of the whole run, and raise the total of the stage."""
        text = f"Finished files ({count_of(studies, 'study')})"
        if self._overall is None:
            self._overall = self._bars.add_task(text, total=total, completed=done, beside="")
        else:
            self._bars.update(self._overall, total=total, completed=done, description=text)
        if self._stage is not None and total > self._total:
            self._total = total
            self._bars.update(self._stage, total=total)

    def note(self, text: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(printable(text), highlight=False, markup=False)


def _bars(stream: TextIO) -> Any:
    """Make rich's bars; what stands beside the steps has a line of its own, so that it takes no room from counts."""
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Bars(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["beside"]:
                    yield Text(f"  {task.fields['beside']}", no_wrap=True, overflow="ellipsis")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=Console(file=stream))


def progress(quiet: bool = False) -> PlainProgress | BarProgress:
    """Choose how progress is shown: bars on a terminal, lines elsewhere, nothing by ranks behind the first."""
    if quiet or not is_first_rank():
        return PlainProgress(_Nowhere())
    return BarProgress() if forgiving_stderr().isatty() else PlainProgress()


def is_first_rank() -> bool:
    """Return whether this process is the only one, or the first of several that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def print_line(text: str) -> None:
    """Print a line on standard error if that is possible."""
    print(text, file=forgiving_stderr(), flush=True)


def print_grey(text: str) -> None:
    """Print a line of little weight on standard output: dim on a terminal, plain elsewhere."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console

    Console().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def forgiving_stderr() -> TextIO:
    """Return a standard error that never raises."""
    return cast("TextIO", _Forgiving(sys.stderr or _Nowhere()))


class _Forgiving:
    """A stream whose failures to write are dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Return whether it is a terminal; a closed stream is none."""
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError):
            return False

    def write(self, text: str) -> int:
        """Write, or drop it."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # full or gone; closed
            self._stop_drawing()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._stop_drawing()

    def _stop_drawing(self) -> None:
        """Write nowhere from now on, so that Python does not fail at its end when it flushes what is left."""
        if sys.stderr is self._stream:
            sys.stderr = _Nowhere()
        self._stream = _Nowhere()


class _Nowhere(TextIO):
    """A stream that drops everything."""

    def write(self, text: str) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Drop it."""
        return len(text)

    def flush(self) -> None:
        """Do nothing."""
