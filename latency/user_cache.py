"""Where what is costly to make is kept for all runs of a user."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """The folder `elastic-nas/NAME` in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "elastic-nas" / name
