"""Work for the process pool's tests; a module of its own, so that spawned processes can import it."""

import os
from pathlib import Path


def leave_a_file(folder: Path, unit: str) -> str:
    """The unit "dies" kills its process, "raises" raises, every other one leaves a file and is done."""
    if unit == "dies":
        os._exit(9)
    if unit == "raises":
        raise RuntimeError("planted")
    (folder / unit).write_text(str(os.getpid()))
    return "done"
