"""Where everything of a run lies. Names only: who writes a file is the stage's business."""

from __future__ import annotations

import contextlib
from pathlib import Path

from latency.files import storage_error
from nas.atomic import read_json, write_json
from search_spaces.errors import UserError


class RunDirectory:
    """The files of a run directory, as seen from one device.

    Files that depend on the device belong to the first device that wrote one. The files of every
    other device carry its name before the suffix: `front.json`, and `front.cpu-1t.json`.
    """

    def __init__(self, path: Path, device: str) -> None:
        """See the directory as `device` does; nothing is written.

        Args:
            path: The directory.
            device: Name of the device profile.
        """
        self.path = path
        self.device = device
        self._first_device = self._read_first_device()

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, operating system and CPU."""
        return self.path / "environment.json"

    @property
    def splits(self) -> Path:
        """How the data was split."""
        return self.path / "splits.json"

    @property
    def events(self) -> Path:
        """What happened, a line per event."""
        return self.path / "events.jsonl"

    @property
    def database(self) -> Path:
        """SQLite: evaluations and measurements."""
        return self.path / "run.db"

    @property
    def lock(self) -> Path:
        """Locked while a command works on the directory."""
        return self.path / ".lock"

    @property
    def checkpoint(self) -> Path:
        """What an interrupted training goes on from."""
        return self.path / "training.safetensors"

    @property
    def training_log(self) -> Path:
        """Losses, a line per logged step."""
        return self.path / "training.jsonl"

    @property
    def supernet(self) -> Path:
        """The trained weights."""
        return self.path / "supernet.safetensors"

    @property
    def supernet_json(self) -> Path:
        """What the weights are: family, space, hash, sanity table."""
        return self.path / "supernet.json"

    @property
    def table(self) -> Path:
        """The latency table of the device."""
        return self._of_device("table.json")

    @property
    def search(self) -> Path:
        """What was evaluated, and its front."""
        return self._of_device("search.json")

    @property
    def search_unfinished(self) -> Path:
        """The same of a search that is not done yet."""
        return self._of_device("search-unfinished.json")

    @property
    def search_start(self) -> Path:
        """How many evaluations were there when a search began."""
        return self._of_device("search-start.json")

    @property
    def front(self) -> Path:
        """The exported and measured front."""
        return self._of_device("front.json")

    @property
    def front_csv(self) -> Path:
        """The front as a table."""
        return self._of_device("front.csv")

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self._of_device("report.html")

    @property
    def exports(self) -> Path:
        """The folder of exported subnets."""
        exports = self.path / "exports"
        return exports if self.is_first_device else exports / self.device

    @property
    def is_first_device(self) -> bool:
        """Whether this device's files carry no name of a device."""
        return self._first_device in (None, self.device)

    @property
    def is_trained(self) -> bool:
        """Whether a training has begun here, so that its settings may not change any more."""
        files = (self.checkpoint, self.training_log, self.supernet, self.supernet_json)
        return any(file.exists() for file in files)

    def of_device(self, device: str) -> RunDirectory:
        """The same directory, as another device sees it."""
        return RunDirectory(self.path, device)

    def make(self) -> None:
        """Make the directory.

        Raises:
            UserError: It is the root of the file system, something else is in its place, or it may
                not be made.
        """
        if self.path.resolve() == Path(self.path.anchor):
            raise UserError(
                f"output {self.path} is the root of the file system, not a place for "
                "the files of a run; name a directory of its own, such as output=runs/digits"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"output {short(self.path)} cannot be a directory, since a file is in its place; "
                "give another one with output=DIRECTORY"
            ) from None
        except OSError as error:
            raise storage_error(error, self.path) or UserError(
                f"output {short(self.path)} cannot be made: {(error.strerror or '').lower()}; "
                "give another one with output=DIRECTORY"
            ) from error

    def claim(self) -> None:
        """Record this device as the first one, unless another one's files are here already.

        Raises:
            UserError: The disk is full.
        """
        if self._read_first_device() is None:
            write_json(self._devices, {"schema": 1, "first": self.device})
        self._first_device = self._read_first_device()

    @property
    def _devices(self) -> Path:
        return self.path / "devices.json"

    def _read_first_device(self) -> str | None:
        """Name of the device whose files carry no name; None while there are no such files."""
        names = ("table.json", "search.json", "front.json", "front.csv", "report.html")
        if not self._devices.exists() or not any((self.path / name).exists() for name in names):
            return None
        first = read_json(self._devices).get("first")
        if not isinstance(first, str):
            raise UserError(
                f"{short(self._devices)} does not name the first device; delete it if the files "
                "without a device in their names are of this one"
            )
        return first

    def _of_device(self, name: str) -> Path:
        if self.is_first_device:
            return self.path / name
        stem, dot, suffix = name.rpartition(".")
        return self.path / f"{stem}.{self.device}{dot}{suffix}"


def short(path: Path) -> str:
    """Write a path as people type it: what lies below the current directory, without that."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
