"""Progress of a stage: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Update = Callable[[float, str], None]

LINE_EVERY_S = 10.0


def open_console(*, stderr: bool = False) -> Console:
    """A console that breaks lines for a terminal only: a file or a pipe has no width to fit in."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=1000)


@contextmanager
def progress(console: Console, title: str, total: float) -> Iterator[Update]:
    """Show how far a stage is.

    Args:
        console: Where to.
        title: Name of the stage.
        total: How much there is to do.

    Yields:
        A function to call with (how much is done, a few words).
    """
    if not console.is_terminal:
        yield _lines(console, title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


def _lines(console: Console, title: str, total: float) -> Update:
    last_s = 0.0
    first: tuple[float, float] | None = None

    def update(done: float, note: str) -> None:
        nonlocal last_s, first
        now_s = time.monotonic()
        # From here on: what an earlier command has done says nothing of the speed of this one.
        began_s, had = first = first or (now_s, done)
        if now_s - last_s >= LINE_EVERY_S:
            last_s = now_s
            share = 100 * done / total if total else 100.0
            left = ""
            if done > had:
                left = f", {duration((total - done) * (now_s - began_s) / (done - had))} left"
            console.print(f"{title}: {share:.0f} %{left}, {note}", highlight=False, soft_wrap=True)

    return update


def duration(seconds: float) -> str:
    """A length of time in the largest unit that says it with one or two digits."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
