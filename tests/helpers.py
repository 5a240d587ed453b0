"""Small helpers shared by tests."""

import inspect
import re
from collections.abc import Callable
from typing import Any


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as users call it, without the type checks that only pytest turns on."""
    return inspect.unwrap(function)


def whole(message: str) -> str:
    """Pattern for ``pytest.raises(match=…)`` that takes this message and no other, not only a part of it."""
    return rf"\A{re.escape(message)}\Z"
