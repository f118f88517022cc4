"""An open run: its configuration, its directory and its store, for the stages to work on."""

from __future__ import annotations

import contextlib
import sqlite3
from types import TracebackType
from typing import Self

from rich.console import Console

from latency.absent import find_device
from latency.database import connect
from latency.device_profile import DeviceProfile
from nas.atomic import read_json, remove_leftovers, write_json, write_text
from nas.config import Config, check_same_supernet, load_config
from nas.environment import describe_environment
from nas.events import Events
from nas.lock import Lock
from nas.progress import open_console
from nas.run_directory import RunDirectory, short
from nas.store import EvaluationStore
from search_spaces.errors import UserError


class Run:
    """A run directory that this process works on. Use it with `with`, or `close` it."""

    def __init__(
        self,
        *,
        config: Config,
        profile: DeviceProfile,
        directory: RunDirectory,
        connection: sqlite3.Connection,
        lock: Lock | None = None,
        console: Console | None = None,
    ) -> None:
        """Put an open run together; `open` is what most callers want.

        Args:
            config: The configuration.
            profile: The device to measure and search for.
            directory: The run directory, seen from that device.
            connection: The open database.
            lock: The directory's lock, to be released by `close`.
            console: Where progress goes; by default stderr.
        """
        self.config = config
        self.profile = profile
        self.directory = directory
        self.connection = connection
        self.store = EvaluationStore(connection)
        self.events = Events(directory.events)
        self.console = console if console is not None else open_console(stderr=True)
        self._lock = lock

    @classmethod
    def open(cls, config: Config, device: str | None = None, *, exclusive: bool = True) -> Self:
        """Open the run directory of a configuration, and make it when missing.

        The directory is locked until `close`: one command works on it at a time. It keeps the
        resolved configuration and the environment.

        Args:
            config: The configuration.
            device: Device profile to work for; by default the configuration's.
            exclusive: False only looks: no lock is taken and nothing is written here.

        Raises:
            UserError: The device is unknown, another command works on the directory, it was
                trained with other settings, its database is damaged, or the disk is full.
        """
        directory = RunDirectory(config.output_path, device or config.device)
        profile = find_device(directory.device, directory.database)
        if exclusive:
            directory.make()
        elif not directory.config.exists():
            raise UserError(
                f"{config.output} is not a run directory yet; start with nas train or nas run"
            )
        with contextlib.ExitStack() as stack:
            lock = None
            if exclusive:
                lock = Lock(directory.lock)
                stack.callback(lock.release)
            check_unchanged(config, directory)
            connection = connect(directory.database)
            stack.callback(connection.close)
            run = cls(
                config=config,
                profile=profile,
                directory=directory,
                connection=connection,
                lock=lock,
            )
            if exclusive:
                remove_leftovers(directory.path)
                directory.claim()
                write_text(directory.config, config.to_yaml())
                run._record_environment()
            stack.pop_all()
        return run

    @property
    def device(self) -> str:
        """Name of the device profile that this run measures and searches for."""
        return self.profile.name

    def close(self) -> None:
        """Close the database and let the next command in; a second call does nothing."""
        self.connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _record_environment(self) -> None:
        """Keep the environment, and say so in the events when it has changed since."""
        now, file = describe_environment(), self.directory.environment
        then = read_json(file) if file.exists() else None
        if now != then:
            write_json(file, now)
            self.events.write("environment", **now)


def check_unchanged(config: Config, directory: RunDirectory) -> None:
    """Refuse a configuration that contradicts what a directory was trained with.

    Raises:
        UserError: It names the first key that differs, both values and the next step; or what the
            directory was trained with cannot be read.
    """
    if not directory.is_trained or not directory.config.exists():
        return
    try:
        # Free to change; earlier versions took ends without schemes, which did nothing
        previous = load_config(directory.config, ["space.precision_ends=[]"])
    except UserError as error:
        reason = str(error).partition(";")[0]
        raise UserError(
            f"{reason}, so that nobody knows how {short(directory.path)} was trained; restore that "
            "file from a copy, or give another directory with output=DIRECTORY"
        ) from None
    check_same_supernet(config, previous, short(directory.path))
