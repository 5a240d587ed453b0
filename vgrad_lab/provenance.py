"""What a result depends on besides its settings: versions of Python and of the packages that made it."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("vgrad_lab", "numpy", "torch", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Versions by name; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
