"""How a device is prepared for its sessions: what its profile says, and what the device allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from search_spaces.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is done before each session, whichever the backend; undone after it."""

    affinity: tuple[int, ...] | None = None
    """CPUs that the process of a session is pinned to; None leaves them to the scheduler."""
    governor: str | None = None
    """Frequency governor of those CPUs; None leaves it as it is."""
    cool_to_c: float | None = None
    """A session waits until no sensor is hotter, degree C; None does not wait."""

    @classmethod
    def of_profile(cls, affinity: object, prepare: object) -> Self:
        """From the keys `affinity` and `prepare` of a profile.

        Raises:
            UserError: They are not what they should be.
        """
        if affinity is not None and not (
            isinstance(affinity, list | tuple)
            and affinity
            and all(type(cpu) is int and cpu >= 0 for cpu in affinity)
        ):
            raise UserError(f"affinity {affinity!r} is not a list of CPUs; write [2, 3], say")
        known = [one.name for one in fields(cls) if one.name != "affinity"]
        if not isinstance(prepare, Mapping):
            raise UserError(
                f"prepare {prepare!r} is not a mapping; write `prepare:` with lines of "
                f"{', '.join(known)} below it"
            )
        for name in prepare:
            if name not in known:
                raise UserError(f"prepare {name!r} is not one of {', '.join(known)}; remove it")
        governor, limit = prepare.get("governor"), prepare.get("cool_to_c")
        if governor is not None and not (isinstance(governor, str) and governor):
            raise UserError(f"prepare governor {governor!r} is not a name; write performance, say")
        if limit is not None and not (type(limit) in (int, float) and 0 < limit < 150):
            raise UserError(f"prepare cool_to_c {limit!r} is not in 0..150, degree C")
        cpus = None if affinity is None else tuple(sorted(set(affinity)))
        return cls(affinity=cpus, governor=governor, cool_to_c=limit)

    def request(self) -> dict[str, Any]:
        """What the process of a session, and who watches it, are told."""
        return {
            "affinity": None if self.affinity is None else list(self.affinity),
            "prepare": {"governor": self.governor, "cool_to_c": self.cool_to_c},
        }

    def check(self, device: Mapping[str, Any], where: str) -> None:
        """Refuse CPUs that a process of this device cannot be pinned to.

        Args:
            device: What it says of itself; see `latency.host_facts.describe`.
            where: What to call it.

        Raises:
            UserError: They are not there, or its system pins no process.
        """
        if self.affinity is None:
            return
        listed = list(self.affinity)
        if not device["platform"].startswith("linux"):
            raise UserError(
                f"affinity {listed}: {where} is {device['platform']}, which pins no process to "
                "CPUs; remove it from the profile"
            )
        if not set(listed) <= set(device["cpus"]):
            raise UserError(f"affinity {listed} is not within the CPUs {device['cpus']} of {where}")

    def fingerprint(self, device: Mapping[str, Any]) -> dict[str, str]:
        """The device's fingerprint as it is in a session."""
        found = dict(device["fingerprint"])
        if self.affinity is not None:
            found["cpus"] = ",".join(str(cpu) for cpu in self.affinity)
        if self.governor in device["governors"]:
            found["governor"] = str(self.governor)
        return found

    def unmet(self, device: Mapping[str, Any], where: str) -> list[str]:
        """What the profile asks for and the device does not allow, with what to do; often empty."""
        lines = []
        try:
            self.check(device, where)
        except UserError as error:
            lines.append(str(error))
        if self.governor is not None and self.fingerprint(device)["governor"] != self.governor:
            now = device["fingerprint"]["governor"]
            why = (
                "it tells none, as most virtual machines"
                if now == "unknown"
                else f"it is {now}, and to change it takes root; there, run "
                f"`sudo cpupower frequency-set -g {self.governor}`"
            )
            lines.append(f"governor {self.governor} cannot be set on {where}: {why}")
        if self.cool_to_c is not None and not device["temperatures_c"]:
            lines.append(f"cool_to_c {self.cool_to_c:g}: {where} tells no temperature")
        return lines

    def __str__(self) -> str:
        words = []
        if self.affinity is not None:
            words.append(f"pinned to CPU {', '.join(str(cpu) for cpu in self.affinity)}")
        if self.governor is not None:
            words.append(f"governor {self.governor}")
        if self.cool_to_c is not None:
            words.append(f"cooled to {self.cool_to_c:g} degree C")
        return ", ".join(words)


UNPREPARED = Preparation()
"""The device as it is."""
