"""Checks of the numbers in a task's parameters."""

from search_spaces.errors import UserError


def at_least(limit: int, name: str, value: int) -> int:
    """Return `value` of the parameter `name`.

    Raises:
        UserError: Not a whole number, or below `limit`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < limit:
        raise UserError(
            f"task.{name} {value!r} is not a whole number of {limit} or more; correct it"
        )
    return value
