"""How long and how often to time: the numbers of one measuring mode."""

import math
from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["standard", "quick"]
MAX_PATIENCE = 5.0
"""A session gets 10 times its estimate before it counts as hung."""


@dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """The numbers of the measuring protocol; `standard()` for results, `quick()` for demos."""

    mode: Mode
    """Sessions are stored, counted and reused per mode."""
    min_sessions: int
    """Accepted sessions a candidate needs before its interval is looked at; at least 2."""
    max_sessions: int
    """Sessions a candidate may take, the discarded ones included."""
    rounds: int
    """Times a session times each model, in an order drawn anew for each round."""
    block_ms: float
    """Shortest block: one model is run again and again for this long."""
    warmup_s: float
    """Warm-up of a session, over all its models together."""
    interval_target: float
    """Largest half-width of the 95 % interval of log(candidate / anchor) that is `ok`."""
    drift_limit: float
    """Anchor before and after a session further apart than this share: discard it."""
    sentinel_limit: float = 1.10
    """Anchor slower than its baseline times this: the device is hot or busy; cool down."""
    sentinel_retries: int = 3
    """Sessions in a row that are thrown away as hot before one is kept and marked."""
    cooldown_s: float = 10.0
    """Pause before a hot session is repeated."""
    lost_retries: int = 3
    """Retries of a session whose process or link died."""
    backoff_s: float = 1.0
    """First pause before such a retry; doubles each time, jittered by half."""
    timeout_retries: int = 1
    """Retries of a model that once ran out of time."""
    min_timeout_s: float = 30.0
    """A session may take the larger of this and 10 times its estimate."""
    patience: float = 1.0
    """Time that a session may take for waiting until the machine is calm and for timing disturbed
    blocks again, as a share of what its blocks take; 0 times each block once, whatever happens."""
    candidates_per_session: int = 8
    """Most models beside the anchor in one session."""
    seed: int = 0
    """Seed of the order of the blocks; `measure` gives every session its own."""
    baseline_ns: float | None = None
    """The anchor's latency on the calm device; None while nothing is known of it. `measure` tells
    every session."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ValueError: A number is out of its range.
        """
        if not 2 <= self.min_sessions <= self.max_sessions:
            raise ValueError(
                f"min_sessions {self.min_sessions} and max_sessions {self.max_sessions}: "
                "2 <= min_sessions <= max_sessions must hold, an interval needs two sessions"
            )
        if self.rounds < 1 or self.block_ms <= 0 or self.warmup_s < 0:
            raise ValueError(
                f"rounds {self.rounds}, block_ms {self.block_ms}, warmup_s {self.warmup_s}: "
                "give rounds >= 1, block_ms > 0 and warmup_s >= 0"
            )
        if self.interval_target <= 0 or self.drift_limit <= 0 or self.sentinel_limit <= 1:
            raise ValueError(
                f"interval_target {self.interval_target} and drift_limit {self.drift_limit} "
                f"must be above 0, sentinel_limit {self.sentinel_limit} above 1"
            )
        if not 0 <= self.patience <= MAX_PATIENCE:
            raise ValueError(f"patience {self.patience} is not within 0 and {MAX_PATIENCE:g}")
        if self.candidates_per_session < 1:
            raise ValueError(f"candidates_per_session {self.candidates_per_session} is below 1")

    @classmethod
    def standard(cls) -> "TimingConfig":
        """At least 5 sessions of about 7 s for 8 candidates, to an interval of +-2 %.

        Up to four times as long on a busy machine.
        """
        return cls(
            mode="standard",
            min_sessions=5,
            max_sessions=20,
            rounds=5,
            block_ms=100.0,
            warmup_s=1.0,
            interval_target=0.02,
            drift_limit=0.03,
            patience=3.0,
        )

    @classmethod
    def quick(cls) -> "TimingConfig":
        """3 to 6 sessions of about 4 s for 8 candidates, to an interval of +-5 %; marked quick.

        Up to twice as long on a busy machine. Ten short rounds in place of three long ones: as
        much time, but the anchor is never far off, which on a busy machine halves the spread
        between sessions.
        """
        return cls(
            mode="quick",
            min_sessions=3,
            max_sessions=6,
            rounds=10,
            block_ms=30.0,
            warmup_s=0.3,
            interval_target=0.05,
            drift_limit=0.05,
            sentinel_retries=2,
            cooldown_s=1.0,
        )

    def of_session(self, seed: int, baseline_ns: float | None = None) -> "TimingConfig":
        """The same numbers with another order of blocks, and what is known of the anchor."""
        return replace(self, seed=seed, baseline_ns=baseline_ns)

    def estimate_s(self, models: int) -> float:
        """Expected length of a session of `models` short models, the anchor among them."""
        blocks = models * self.rounds + 2 * self.anchor_blocks
        return 1.0 + self.warmup_s + blocks * self.block_ms / 1000

    def timeout_s(self, models: int) -> float:
        """Longest time of a session of `models` models, unless they turn out to be slow."""
        return max(self.min_timeout_s, 10 * self.estimate_s(models))

    def request(self) -> dict[str, float | None]:
        """The numbers that the process of a session needs; see `latency.session.serve`."""
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "block_ms": self.block_ms,
            "warmup_s": self.warmup_s,
            "anchor_blocks": self.anchor_blocks,
            "patience": self.patience,
            "baseline_ns": self.baseline_ns,
        }

    @property
    def anchor_blocks(self) -> int:
        """Blocks of the anchor alone before, and again after, the rounds: 200 ms, 2 to 10 blocks.

        The calmest of them are compared for drift: a single block would be at the mercy of one
        burst of foreign load, which interleaving already takes care of.
        """
        return min(10, max(2, math.ceil(200 / self.block_ms)))
