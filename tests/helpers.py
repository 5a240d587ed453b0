"""Small helpers shared by tests."""

import inspect
import re
from collections.abc import Callable
from typing import Any


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as users call it, without the type checks that only pytest turns on; other wrappers stay.

    mutmut wraps functions too: to take its wrapper off would test the code without its planted fault.
    """
    return inspect.unwrap(function, stop=lambda f: "jaxtyping" not in f.__code__.co_filename)


def whole(message: str) -> str:
    """Pattern for ``pytest.raises(match=…)`` that takes this message and no other, not only a part of it."""
    return rf"\A{re.escape(message)}\Z"
