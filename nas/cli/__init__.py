"""The command `nas`. Each command imports what it needs when it runs, so that help is quick."""

from nas.cli.entry import main

__all__ = ["main"]
