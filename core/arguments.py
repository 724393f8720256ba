"""Checks of the arguments of Python calls. The error line names the argument and what is expected."""

import reprlib
from numbers import Integral
from types import UnionType

from rsmclip.core.errors import UserError


def check_type(name: str, value: object, kinds: type | UnionType, expected: str) -> None:
    """Raise [`UserError`] unless an argument has one of some types. `expected` says in words what it must be."""
    if not isinstance(value, kinds):
        raise UserError(f"{name} is of type {type(value).__name__}, but must be {expected}")


def check_count(name: str, value: object) -> int:
    """Return an argument as an `int`. Raise [`UserError`] unless it is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name} is {reprlib.repr(value)}, but must be a whole number of at least 1")
    return int(value)
