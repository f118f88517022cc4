"""Where what is costly to make is kept for all runs of a user."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """The folder `elastic-nas/NAME` in the user's cache: `XDG_CACHE_HOME`, else `~/.cache`.

    One that cannot be made for a user without a home.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not home.is_absolute():  # to be ignored, by the XDG Base Directory Specification
        try:
            home = Path.home() / ".cache"
        except RuntimeError:
            home = Path(os.devnull)
    return home / "elastic-nas" / name
