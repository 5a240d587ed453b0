"""Make .venv and install the package with the pinned versions; run again it does nothing. Standard library only.

    python tools/make_venv.py EXTRA

EXTRA is one of the extras of pyproject.toml. If the Python that runs this already has torch ≥ 2.11 (a CUDA build, say),
the environment is made on top of it and that torch is used; otherwise the pinned one is installed.
"""

import hashlib
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
NEWEST_FIRST = ("dev", "test", "checkpoints")  # each holds all that the ones after it hold


def fail(message: str) -> None:
    """Say what failed and stop."""
    sys.exit(f"\nmake_venv: {message}")


def own_torch() -> str | None:
    """Version of a torch ≥ 2.11 that the running Python has, None without one."""
    probe = "import torch; print(torch.__version__)"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    match = re.match(r"(\d+)\.(\d+)", out.stdout.strip())
    if out.returncode or not match or (int(match[1]), int(match[2])) < (2, 11):
        return None
    return out.stdout.strip()


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def stamp(extra: str) -> str:
    """Content that makes an installed environment current."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt"))
    return f"{extra} {hashlib.sha256((text + str(ROOT)).encode()).hexdigest()}"


def is_current(extra: str) -> bool:
    """Whether the environment already holds this extra, or a larger one, at these versions."""
    done = VENV / "vgrad_lab.installed"
    if not (done.is_file() and python_of(VENV).exists()):
        return False
    larger = NEWEST_FIRST[: NEWEST_FIRST.index(extra) + 1] if extra in NEWEST_FIRST else (extra,)
    return done.read_text(encoding="utf-8") in {stamp(e) for e in larger}


def constraints(keep_torch: bool) -> Path:
    """The pins, without torch when the user's own is kept."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    path = VENV / "constraints.txt"
    path.write_text("\n".join(p for p in pins if not (keep_torch and p.startswith("torch=="))) + "\n", encoding="utf-8")
    return path


def main(extra: str) -> None:
    """Make or refresh the environment."""
    if sys.version_info < (3, 11):
        fail(f"Python {sys.version.split()[0]} is too old; run with Python 3.11 or newer: make PYTHON=python3.12 ...")
    if is_current(extra):
        return
    torch = own_torch()
    print(f"environment: {VENV} ({extra}), torch {torch + ' of your Python' if torch else 'as pinned'}", flush=True)
    try:
        if not python_of(VENV).exists():
            venv.create(VENV, with_pip=True, clear=True, system_site_packages=torch is not None)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"cannot make {VENV}: {error}. On Debian and Ubuntu install python3-venv; check free space and rights.")
    command = [str(python_of(VENV)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = str(constraints(keep_torch=torch is not None))
    if torch is None:  # by itself first, so that a CPU build from a wheel folder or index is found before CUDA ones
        pinned = next(p for p in (ROOT / "constraints.txt").read_text().splitlines() if p.startswith("torch=="))
        run(command, ["-c", pins, pinned])
    run(command, ["-c", pins, "-e", f"{ROOT}[{extra}]"])
    (VENV / "vgrad_lab.installed").write_text(stamp(extra), encoding="utf-8")


def run(command: list[str], arguments: list[str]) -> None:
    """One pip call; its own output explains a failure, the last line says what to do."""
    print("  pip install " + " ".join(a.replace(f"{ROOT}/", "").replace(str(ROOT), ".") for a in arguments), flush=True)
    if subprocess.run(command + arguments).returncode:
        fail("pip failed (its message is above). Check the network and free space, then run the same command again.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        fail("give one extra: python tools/make_venv.py test")
    main(sys.argv[1])
