"""A measuring protocol that is over at once, for tests of what comes after."""


def short_timing(cls):
    """Two sessions of everything, precise or not."""
    return cls(
        mode="quick",
        min_sessions=2,
        max_sessions=2,
        rounds=2,
        block_ms=1.0,
        warmup_s=0.0,
        interval_target=100.0,
        drift_limit=100.0,
        sentinel_limit=100.0,
        cooldown_s=0.0,
        backoff_s=0.0,
        candidates_per_session=64,
    )
