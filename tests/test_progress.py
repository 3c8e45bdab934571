"""Progress says where a stage is, how fast it goes and how long it will take."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from compress import progress, provenance
from compress.progress import LineProgress, Rate, TerminalProgress, duration, format_values


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_count_this_attempt_only(clock: list[float]) -> None:
    rate = Rate(total=100, done=40)
    assert rate.per_s is None and rate.text("steps") == ""
    clock[0] += 5
    rate.advance(10)
    assert (rate.done, rate.per_s, rate.left_s) == (50, 2.0, 25.0)
    assert rate.text("steps") == "2 steps/s, 25 s left"
    clock[0] += 95
    assert rate.text("steps") == "10 s/step, 8 min 20 s left"  # 50 left at 0.1 a second


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7530, "2 h 06 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_come_every_few_seconds_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    lines = LineProgress(stream, every_s=10)
    lines.start(100, "steps", "joint")
    for _ in range(25):
        clock[0] += 1
        lines.advance(1, loss=0.5)
    lines.close()
    assert stream.getvalue().splitlines() == [
        "joint: 10/100 steps, 1 steps/s, 1 min 30 s left, loss 0.5",
        "joint: 20/100 steps, 1 steps/s, 1 min 20 s left, loss 0.5",
        "joint: 25/100 steps, 1 steps/s, 1 min 15 s left, loss 0.5",
    ]


@pytest.mark.parametrize("make", [LineProgress, TerminalProgress])
def test_advancing_what_was_not_started_is_a_bug(make: type) -> None:
    with pytest.raises(RuntimeError, match="before start"):
        make().advance()


def test_a_terminal_shows_a_bar_with_the_last_values() -> None:
    stream = io.StringIO()
    bar = TerminalProgress(Console(file=stream, force_terminal=True, width=120))
    bar.start(10, "steps", "joint", done=4)
    bar.advance(6, loss=0.25)
    bar.advance(0)
    bar.message("a word [in brackets]")
    bar.close()
    assert "10/10" in stream.getvalue() and "loss 0.25" in stream.getvalue()
    assert "a word [in brackets]" in stream.getvalue()


def test_values_are_short() -> None:
    assert format_values({"loss": 0.123456, "lr": 0.0003}) == "loss 0.1235, lr 0.0003"


def test_the_meter_adds_up_attempts(tmp_path: Path) -> None:
    file = tmp_path / "meter.json"
    file.write_text('{"wall_s": 50.0, "peak_rss_gb": 900.0}')
    with provenance.Meter(file) as meter:
        pass
    assert 50 <= meter.wall_s < 51 and meter.peak_rss_gb == 900.0
    file.write_text("half of")
    with provenance.Meter(file) as meter:
        pass
    assert meter.wall_s < 1 and 0 < meter.peak_rss_gb < 100
