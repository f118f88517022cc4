"""Property tests draw the same examples every time; `--hypothesis-profile=default` draws others."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
