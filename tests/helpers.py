"""Small helpers shared by tests."""

import inspect
from collections.abc import Callable
from typing import Any


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as users call it, without the type checks that only pytest turns on."""
    return inspect.unwrap(function)
