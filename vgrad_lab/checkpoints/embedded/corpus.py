"""Real text without a download: the language reference and docstrings that ship with CPython, and those of packages."""

import ast
import hashlib
import importlib.util
import platform
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path

from vgrad_lab.checkpoints.errors import UserError

SHORTEST = 80
"""A docstring counts when it has more characters than this."""
LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"})
TOPICS = Path("pydoc_data") / "topics.py"


def stdlib_texts(*, characters: int | None = None, root: Path | None = None) -> tuple[str, ...]:
    """The reference topics, then every different docstring of the standard library, in the order of sorted paths.

    Modules are parsed, never imported; files that do not parse are passed over; tests and installed packages are left
    out. The result depends on nothing but the source tree, that is, on the Python version.

    Args:
        characters: stop after the text with which this many characters are reached; None takes all (about 2 million).
        root: folder of the standard library's source; that of the running Python by default.

    Raises:
        UserError: there is no source tree to read (a Python packed into one file).
        ValueError: characters is not positive.
    """
    if characters is not None and characters < 1:
        raise ValueError(f"characters is {characters}; give a positive number, or None for all")
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    found: dict[str, None] = {}
    total = 0
    for text in _texts(root):
        if text in found:
            continue
        found[text] = None
        total += len(text)
        if characters is not None and total >= characters:
            break
    if not found:
        raise UserError(
            f"no text found below {root}; the corpus is read from the standard library's source files, "
            "so run with a Python that ships them (CPython from python.org, a distribution, conda or uv)"
        )
    return tuple(found)


def corpus_texts(*, characters: int | None = None, packages: Sequence[str] = ()) -> tuple[str, ...]:
    """``stdlib_texts``, then the different docstrings of installed packages in the order given.

    The result depends on the versions of Python and of the packages. Packages are found, never imported.

    Args:
        characters: as in `stdlib_texts`, over everything.
        packages: names of packages to import, such as `numpy`.

    Raises:
        UserError: a package is not installed, or has no source to read.
        ValueError: characters is not positive.
    """
    texts = stdlib_texts(characters=characters)
    left = None if characters is None else characters - sum(map(len, texts))
    for name in packages:
        if left is not None and left <= 0:
            break
        more = stdlib_texts(characters=left, root=package_folder(name))
        texts = tuple(dict.fromkeys((*texts, *more)))
        left = None if characters is None else characters - sum(map(len, texts))
    return texts


def package_folder(name: str) -> Path:
    """Folder of an installed package's source. Raises UserError where there is none."""
    try:
        found = importlib.util.find_spec(name)
    except ValueError:  # a module without a specification
        found = None
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise UserError(f"package {name!r} is not installed (or has no folder); leave it out of `packages`")
    return Path(folders[0])


def licences(packages: Sequence[str]) -> dict[str, str]:
    """Version and licence of each package as its metadata states them, Python's first."""
    found = {"python": f"{platform.python_version()}, PSF-2.0"}
    distributions = packages_distributions() if packages else {}
    for name in packages:
        try:
            about = metadata(distributions.get(name, [name])[0])
        except PackageNotFoundError:
            found[name] = "not stated"
            continue
        classifiers = [c for c in about.get_all("Classifier") or () if c.startswith("License :: ")]
        named = "; ".join(c.rsplit(" :: ", 1)[1] for c in classifiers)
        short, free = (str(about.json.get(key, "")).strip() for key in ("license_expression", "license"))
        stated = short or named or (free.splitlines()[0][:80] if free else "not stated")
        found[name] = f"{about['Version']}, {stated}"
    return found


def texts_sha256(texts: tuple[str, ...]) -> str:
    """SHA-256 of the texts and of where one ends and the next begins."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(f"{len(encoded)}\n".encode() + encoded)
    return digest.hexdigest()


def _texts(root: Path) -> Iterator[str]:
    """Topics by name, then docstrings of each module in the order of the syntax tree."""
    yield from (text for _, text in sorted(_topics(root / TOPICS).items()))
    for path in sorted(root.rglob("*.py")):
        if LEFT_OUT.isdisjoint(path.relative_to(root).parts) and (tree := _parse(path)):
            yield from _docstrings(tree)


def _topics(path: Path) -> dict[str, str]:
    """The dictionary literal of `pydoc_data.topics`."""
    tree = _parse(path) if path.is_file() else None
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            return topics
    return {}


def _parse(path: Path) -> ast.Module | None:
    """Syntax tree of a file, or None where Python itself would refuse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):  # the last two: nested too deep
            return None


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """Docstrings of a module, its classes and functions that are long enough."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) > SHORTEST:
                yield text
