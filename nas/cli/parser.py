"""Command lines: which command, with which arguments, and one line for what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from nas.cli.commands import COMMANDS, add_arguments

EXIT_CODES = """exit codes:
  0    done
  1    a bug: please report it
  2    wrong usage, configuration, data or file
  3    nothing meets the bounds
  4    finished, but measurements failed
  130  interrupted; the same command goes on from there
"""


class UsageError(Exception):
    """A command line that cannot be understood. The message is one line."""

    exit_code = 2


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Args:
        argv: The arguments, without the name of the program.

    Returns:
        The arguments of the command, and its name as `command`.

    Raises:
        UsageError: Unknown command or argument, or one is missing.
        SystemExit: Help was asked for, and printed.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        text = overview()
        if not argv:
            raise UsageError(f"nas: give a command: {', '.join(COMMANDS)}; see nas --help")
        print(text, end="")
        raise SystemExit(0)
    name = argv[0]
    if name not in COMMANDS:
        raise UsageError(f"nas: {name} is not a command; {_suggestion(name)}see nas --help")
    parser = command_parser(name)
    arguments, rest = parser.parse_known_args(list(argv[1:]))
    # argparse takes positional arguments in one stretch only; overrides may follow options.
    if rest and "overrides" in arguments and not any(word.startswith("-") for word in rest):
        arguments.overrides = [*arguments.overrides, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.command = name
    return arguments


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"nas {name}",
        description=command.description,
        epilog=f"example:\n  {command.example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.description = _wrap(command.description)
    add_arguments(parser, command)
    return parser


def overview() -> str:
    """Return what `nas --help` prints."""
    lines = [
        "usage: nas COMMAND [arguments]",
        "       nas COMMAND --help",
        "       nas --version",
        "",
        "Train one elastic transformer, measure a device, and get the Pareto-optimal subnets for",
        "it, exported and measured.",
        "",
        "commands:",
        *(f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()),
        "",
        "example:",
        "  nas init digits --output digits.yaml",
        "  nas run digits.yaml",
        "",
        EXIT_CODES,
    ]
    return "\n".join(lines)


def _suggestion(name: str) -> str:
    # Here, since difflib takes a while to import and is for mistakes only.
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"did you mean {near[0]}? " if near else ""


def _wrap(text: str) -> str:
    import textwrap  # here, as above

    return textwrap.fill(text, width=88)
