"""A model hub on 127.0.0.1 for tests: enough of the API for the real `huggingface_hub` client and `transformers`.

    with serve(Repository("ours/ladder", {"main": folder_files(path), "step10": {…}})) as hub:
        HfApi(endpoint=hub.endpoint).list_repo_refs("ours/ladder")

Nothing here is sent anywhere: the server listens on the loopback address and holds what the test gave it. Faults are of
two kinds: in a repository (`FAULTS`: files that lie) and on the wire (`Hub.plant`: answers that fail).
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import Message
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt", ".h5")
"""Files that the hub keeps as LFS objects, with their SHA-256 in the metadata."""
CHUNK = 1 << 16
Wire = Literal["404", "500", "gated", "truncate", "short", "flip"]


@dataclass(frozen=True)
class Blob:
    """One file: its content, or (for a file too large for a test) a name and a size alone."""

    size: int
    sha256: str
    large: bool
    content: bytes | None = None

    @property
    def blob_id(self) -> str:
        """Git's name of the file or, for an LFS object, of its pointer."""
        return hashlib.sha1(f"blob {self.sha256}".encode()).hexdigest()


Files = dict[str, Blob]


def blob(content: bytes | str, *, large: bool = False) -> Blob:
    """A file of these bytes."""
    raw = content.encode() if isinstance(content, str) else content
    return Blob(len(raw), hashlib.sha256(raw).hexdigest(), large, raw)


def declared(size: int, name: str) -> Blob:
    """An LFS object that exists in the metadata alone: two of the same size and name are the same object."""
    return Blob(size, hashlib.sha256(f"{name} {size}".encode()).hexdigest(), True)


def folder_files(folder: Path) -> Files:
    """The files of a folder, sub-folders included."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder).as_posix()): blob(path.read_bytes(), large=path.suffix in LARGE) for path in found
    }


@dataclass(frozen=True)
class Repository:
    """A repository: files per branch. The commit of a branch depends on its name too, as it does on the hub.

    Args:
        name: `owner/name`.
        branches: files by path, per branch; the first should be main.
        tags: branch that each tag points to.
    """

    name: str
    branches: Mapping[str, Files]
    tags: Mapping[str, str] = field(default_factory=dict)

    def commit(self, branch: str) -> str:
        """40 hex digits."""
        files = sorted((path, one.sha256) for path, one in self.branches[branch].items())
        return hashlib.sha1(json.dumps([self.name, branch, files]).encode()).hexdigest()

    def files(self, revision: str) -> tuple[str, Files] | None:
        """Commit and files of a branch, a tag or a commit; None if there is none."""
        revision = revision if revision in self.branches else self.tags.get(revision, revision)
        for branch, files in self.branches.items():
            if revision in (branch, self.commit(branch)):
                return self.commit(branch), files
        return None

    def with_branch(self, branch: str, files: Files) -> "Repository":
        """The repository with one branch added or replaced."""
        return replace(self, branches={**self.branches, branch: files})


def _weights(files: Files) -> list[str]:
    return sorted(path for path in files if path.endswith(".safetensors"))


def _last(repository: Repository) -> tuple[str, Files]:
    """The last branch that is not main."""
    branch = [name for name in repository.branches if name != "main"][-1]
    return branch, repository.branches[branch]


def duplicate_rung(repository: Repository) -> Repository:
    """The last rung holds the weights of the first."""
    first = next(name for name in repository.branches if name != "main")
    return repository.with_branch(_last(repository)[0], dict(repository.branches[first]))


def stale_main(repository: Repository) -> Repository:
    """The last rung holds the weights of main."""
    return repository.with_branch(_last(repository)[0], dict(repository.branches["main"]))


def missing_shard(repository: Repository) -> Repository:
    """The last rung lacks one file of its weights."""
    branch, files = _last(repository)
    return repository.with_branch(branch, {k: v for k, v in files.items() if k != _weights(files)[-1]})


def bin_only(repository: Repository) -> Repository:
    """The last rung holds its weights as one pickle."""
    branch, files = _last(repository)
    kept = {k: v for k, v in files.items() if ".safetensors" not in k}
    return repository.with_branch(branch, {**kept, "pytorch_model.bin": blob(b"a pickle", large=True)})


def python_file(repository: Repository) -> Repository:
    """The last rung carries code, which a client must never run."""
    branch, files = _last(repository)
    code = "raise SystemExit('code of the repository ran')\n"
    return repository.with_branch(branch, {**files, "modeling_ours.py": blob(code)})


FAULTS: dict[str, Callable[[Repository], Repository]] = {
    "duplicate rung": duplicate_rung,
    "stale main": stale_main,
    "missing shard": missing_shard,
    "bin only": bin_only,
    "python file": python_file,
}
"""What a repository can get wrong; each works on any repository with main and at least two other branches."""


@dataclass
class _Fault:
    pattern: str
    kind: Wire
    times: int


@dataclass
class Hub:
    """A running server.

    Args:
        repositories: what it serves, by name; tests may replace one while it runs.
        rate: bytes per second of each body, None for no limit.
        requests: what was asked, as `METHOD path`, in order of arrival.
    """

    repositories: dict[str, Repository]
    endpoint: str = ""
    rate: float | None = None
    requests: list[str] = field(default_factory=list)
    _faults: list[_Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plant(self, pattern: str, kind: Wire, *, times: int = 10**9) -> None:
        """Answer the next requests whose path matches wrongly.

        404, 500 or `gated`: an error in place of the answer. The others touch GET alone: a body that ends in its
        middle (`truncate`; a client that resumes there gets nothing more while the fault lasts), that does so with a
        matching Content-Length (`short`), or that has one bit changed (`flip`, which only a hash can see).

        Args:
            pattern: shell pattern for the whole path, such as `*/resolve/*.safetensors`.
            kind: what goes wrong.
            times: how many requests it meets.
        """
        with self._lock:
            self._faults.append(_Fault(pattern, kind, times))

    def heal(self) -> None:
        """Take all planted faults back."""
        with self._lock:
            self._faults.clear()

    def fault(self, method: str, path: str) -> Wire | None:
        """The fault that this request meets, counted down."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            for one in self._faults:
                reaches = method == "GET" or one.kind in ("404", "500", "gated")
                if one.times > 0 and reaches and fnmatchcase(path, one.pattern):
                    one.times -= 1
                    return one.kind
        return None

    def environment(self) -> dict[str, str]:
        """Variables for a process of its own, whose hub this is."""
        ours = {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        ours |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {**os.environ, **ours}


@contextmanager
def serve(*repositories: Repository, rate: float | None = None, default: bool = False) -> Iterator[Hub]:
    """Run a hub for the block and let this process reach it: pass `endpoint=hub.endpoint` to the client.

    The tests run with the client set offline; inside the block it may connect, and outside it may not again.

    Args:
        repositories: what to serve.
        rate: bytes per second of each body, None for no limit.
        default: make it the hub of calls that name no endpoint, `transformers` included.
    """
    import huggingface_hub
    from huggingface_hub import constants

    hub = Hub({one.name: one for one in repositories}, rate=rate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    before = {name: getattr(constants, name) for name in ("HF_HUB_OFFLINE", "ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE")}
    proxies = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    huggingface_hub.close_session()
    constants.HF_HUB_OFFLINE = False
    if default:
        constants.ENDPOINT = hub.endpoint
        constants.HUGGINGFACE_CO_URL_TEMPLATE = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    os.environ.update(dict.fromkeys(proxies, "127.0.0.1"))
    try:
        yield hub
    finally:
        for name, value in before.items():
            setattr(constants, name, value)
        for name, value in proxies.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        huggingface_hub.close_session()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Routes of the hub; what is unknown is answered with 404."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.hub.fault(self.command, path)
        try:
            if fault == "500":
                self._send(500, b"planted")
            elif fault == "404":
                self._error("EntryNotFound")
            elif fault == "gated":
                self._error("GatedRepo", status=403)
            elif path.startswith("/api/models/"):
                self._api(path.removeprefix("/api/models/"), body)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(match[1], match[2], match[3], fault)
            else:
                self._send(404, b"no such route")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _find(self, name: str, revision: str) -> tuple[Repository, str, Files] | None:
        """Repository, commit and files, or None after the error was sent."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._error("RepoNotFound")
            return None
        found = repository.files(revision)
        if found is None:
            self._error("RevisionNotFound")
            return None
        return repository, *found

    def _api(self, path: str, body: bytes) -> None:
        owner, _, rest = path.partition("/")
        name, _, rest = rest.partition("/")
        what, _, rest = rest.partition("/")
        revision, _, inside = rest.partition("/")
        found = self._find(f"{owner}/{name}", revision or "main")
        if found is None:
            return
        repository, commit, files = found
        if what == "refs":
            self._json({"branches": _refs(repository, "heads"), "converts": [], "tags": _refs(repository, "tags")})
        elif what in ("", "revision"):
            query = parse_qs(urlsplit(self.path).query)
            self._json(_info(repository, commit, files, blobs="blobs" in query))
        elif what == "tree":
            self._json([_entry(p, one) for p, one in files.items() if p.startswith(inside)])
        elif what == "paths-info":
            wanted = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
            self._json([_entry(p, files[p]) for p in wanted.get("paths", []) if p in files])
        else:
            self._send(404, b"no such route")

    def _resolve(self, name: str, revision: str, path: str, fault: Wire | None) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        _, commit, files = found
        one = files.get(path)
        if one is None:
            self._error("EntryNotFound", {"X-Repo-Commit": commit})
            return
        etag = one.sha256 if one.large else one.blob_id
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            self._send(200, b"", {**headers, "X-Linked-Size": str(one.size)}, length=one.size)
        elif one.content is None:
            self._send(500, b"this file has a size and no content")
        else:
            self._body(one.content, headers, fault)

    def _body(self, content: bytes, headers: dict[str, str], fault: Wire | None) -> None:
        """The file from where the client asked, with what was planted."""
        half = len(content) // 2
        if fault == "flip":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        if fault == "short":
            content = content[:half]
        start = _range_start(self.headers)
        status, total = (200, len(content)) if start is None else (206, len(content))
        start = start or 0
        if start >= total > 0:
            self._send(416, b"", {"Content-Range": f"bytes */{total}"})
            return
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        end = max(half, start) if fault == "truncate" else total
        self._send(status, content[start:end], headers, length=total - start)
        self.close_connection = self.close_connection or end < total

    def _error(self, code: str, headers: dict[str, str] | None = None, *, status: int = 404) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        rate = self.hub.rate
        step = CHUNK if rate is None else max(1, min(CHUNK, int(rate / 50)))
        for start in range(0, len(content), step):
            part = content[start : start + step]
            self.wfile.write(part)
            if rate is not None:
                time.sleep(len(part) / rate)


def _refs(repository: Repository, kind: str) -> list[dict[str, str]]:
    """Branches or tags as the hub lists them."""
    pairs = repository.tags.items() if kind == "tags" else ((b, b) for b in repository.branches)
    return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": repository.commit(b)} for n, b in pairs]


def _range_start(headers: Message) -> int | None:
    match = re.match(r"bytes=(\d+)-", headers.get("Range", ""))
    return None if match is None else int(match[1])


def _entry(path: str, one: Blob) -> dict[str, Any]:
    """A file as the tree lists it."""
    lfs = {"lfs": {"oid": one.sha256, "size": one.size, "pointerSize": 135}} if one.large else {}
    return {"type": "file", "path": path, "size": one.size, "oid": one.blob_id, **lfs}


def _info(repository: Repository, commit: str, files: Files, *, blobs: bool) -> dict[str, Any]:
    """A revision as `model_info` reads it."""
    siblings: list[dict[str, Any]] = []
    for path, one in files.items():
        lfs = {"lfs": {"sha256": one.sha256, "size": one.size, "pointerSize": 135}} if one.large else {}
        siblings.append({"rfilename": path} | ({"size": one.size, "blobId": one.blob_id, **lfs} if blobs else {}))
    return {"id": repository.name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
