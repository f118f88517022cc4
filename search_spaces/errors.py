"""Mistakes that a user can mend. Every room raises these; `nas.cli` prints one line and exits."""


class UserError(ValueError):
    """A wrong value, file or setting. The message names the value, the limit and the next step."""

    exit_code = 2


class InfeasibleError(UserError):
    """No architecture of the space meets the bounds."""

    exit_code = 3
