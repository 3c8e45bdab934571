"""Progress: a bar with rate, time left and the last values, or plain lines where there is no terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

LINE_EVERY_S = 10.0


class TerminalProgress:
    """A rich progress bar. `start` closes the bar before it; `close` leaves the finished bar on the screen."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: RichProgress | None = None

    def start(self, total: int, unit: str, label: str, done: int = 0) -> None:
        self.close()
        self._rate = Rate(total, done)
        self._values = ""
        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(self._rate, unit),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, values="")
        self._bar.start()

    def advance(self, n: int = 1, **values: float) -> None:
        if self._bar is None:
            raise RuntimeError("advance() before start()")
        self._rate.advance(n)
        self._values = format_values(values) or self._values
        self._bar.update(self._task, advance=n, values=self._values)

    def message(self, text: str) -> None:
        (self._bar.console if self._bar else self._console).print(text, highlight=False, markup=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LineProgress:
    """Plain lines for logs: one every `every_s` seconds and one at the end of a bar."""

    def __init__(self, stream: TextIO | None = None, every_s: float = LINE_EVERY_S) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s
        self._rate: Rate | None = None
        self._values: dict[str, float] = {}
        self._told = False  # whether the last advance has been printed

    def start(self, total: int, unit: str, label: str, done: int = 0) -> None:
        self.close()
        self._rate, self._unit, self._label = Rate(total, done), unit, label
        self._values, self._told = {}, False
        self._next_s = time.monotonic() + self._every_s

    def advance(self, n: int = 1, **values: float) -> None:
        if self._rate is None:
            raise RuntimeError("advance() before start()")
        self._rate.advance(n)
        self._values |= values
        self._told = False
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._every_s
            self._print()

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._rate is not None and not self._told:
            self._print()
        self._rate = None

    def _print(self) -> None:
        self._told = True
        rate = self._rate
        assert rate is not None
        parts = [f"{self._label}: {rate.done}/{rate.total} {self._unit}", rate.text(self._unit)]
        self.message(", ".join(part for part in [*parts, format_values(self._values)] if part))


class Rate:
    """Units per second over what this attempt did itself, and the time left at that rate."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done, self._first = total, done, done
        self._start_s = time.monotonic()

    def advance(self, n: int) -> None:
        self.done += n

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    @property
    def per_s(self) -> float | None:
        """None until anything has been done."""
        made = self.done - self._first
        return made / max(self.elapsed_s, 1e-9) if made else None

    @property
    def left_s(self) -> float | None:
        """None until anything has been done."""
        rate = self.per_s
        return None if rate is None else max(self.total - self.done, 0) / rate

    def text(self, unit: str) -> str:
        """For example "12.3 steps/s, 1 min 20 s left"; empty until anything has been done."""
        rate, left = self.per_s, self.left_s
        if rate is None or left is None:
            return ""
        speed = f"{rate:.3g} {unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit.removesuffix('s')}"
        return speed if self.done >= self.total else f"{speed}, {duration(left)} left"


def duration(seconds: float) -> str:
    """A duration for people: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_values(values: dict[str, float]) -> str:
    """For example "loss 0.1234, lr 0.0003"."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def make_progress() -> TerminalProgress | LineProgress:
    """A bar where stderr is a terminal, lines otherwise."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()


def make_console() -> Console:
    """Where tables are printed; wide enough for them where no terminal would break their lines."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=200)


class _RateColumn(TextColumn):
    def __init__(self, rate: Rate, unit: str) -> None:
        super().__init__("")
        self._rate, self._unit = rate, unit

    def render(self, task: Task) -> Text:
        return Text(self._rate.text(self._unit), style="progress.remaining")
