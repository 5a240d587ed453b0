"""Questions to a model hub: asked again when the answer may come later, and one line when it does not come."""

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from vgrad_lab.checkpoints.errors import UserError

T = TypeVar("T")
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which asking again may help."""
FIRST_WAIT = 0.5
"""Seconds before a second attempt; each later one waits twice as long."""
LONGEST_WAIT = 330
"""Seconds that a hub may make us wait: its limits count requests in windows of five minutes."""


def client(endpoint: str | None = None) -> Any:
    """A `huggingface_hub.HfApi` for an endpoint; by default that of HF_ENDPOINT or the public hub."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint)


class DamagedBody(ConnectionError):
    """What arrived is not what the metadata promised: worth another try."""


def transient(error: BaseException) -> bool:
    """Whether a failed request may succeed later: a status of TRANSIENT, a lost connection, a timeout."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None or isinstance(error, OfflineModeIsEnabled):
        return status in TRANSIENT
    kind = type(error)
    return kind.__module__.split(".")[0].startswith("httpx") or isinstance(error, ConnectionError | TimeoutError)


def ask(
    question: Callable[[], T],
    *,
    about: str,
    attempts: int = 4,
    wait: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The answer to a question to the hub; transient failures are asked again with waits that double.

    A hub that limits the rate of requests says how long to wait, and that long we wait.

    Args:
        question: the request.
        about: what it is about, for the message, such as `allenai/OLMo-2-0425-1B`.
        attempts: requests at most.
        wait: seconds before the second; FIRST_WAIT by default.
        sleep: how to wait.

    Raises:
        UserError: no answer, an error, or an answer that is not the hub's. No header or token is ever in the message.
    """
    for attempt in range(attempts):
        try:
            return question()
        except Exception as error:
            if transient(error) and attempt + 1 < attempts:
                sleep(max((FIRST_WAIT if wait is None else wait) * 2**attempt, asked_wait(error)))
                continue
            raise UserError(f"{about}: {reason(error, attempts=attempt + 1)}") from error
    raise UserError(f"attempts is {attempts}; give a positive number")


def asked_wait(error: BaseException) -> float:
    """Seconds that the hub asks to wait, from `Retry-After` or `RateLimit` (`"api";r=0;t=55`); 0 if it asks nothing."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    after, limit = str(headers.get("Retry-After", "")), str(headers.get("RateLimit", ""))
    match = re.search(r"\br=0;t=(\d+)", limit.replace(" ", ""))
    seconds = int(after) if after.isdecimal() else int(match[1]) if match else 0
    return float(min(seconds, LONGEST_WAIT))


def reason(error: BaseException, *, attempts: int = 1) -> str:
    """What went wrong in one line, and what to do."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the hub cannot be asked because HF_HUB_OFFLINE is set; unset it, or use a ladder on disk"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return "access is gated; accept its terms on the hub's page and log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision; list the real ones with `vgrad ladder list`"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return "no such repository, or a private one; check the name, or log in with `hf auth login`"
    if isinstance(error, errors.EntryNotFoundError):
        return "the file is not there; check the repository on the hub's page"
    if isinstance(error, errors.HFValidationError):
        return f"not a repository's name ({_first_line(error)}); expected owner/name"
    if status is not None:
        return f"the hub answered with status {status}{tried}; try again later"
    if isinstance(error, DamagedBody):
        return f"{_first_line(error)}{tried}; the hub or a proxy serves a damaged file, try again later"
    if transient(error):
        return f"the hub cannot be reached{tried} ({type(error).__name__}: {_first_line(error)}); check the network"
    if isinstance(error, ValueError | KeyError | TypeError | AttributeError):
        return f"the answer is not a model hub's ({type(error).__name__}); check HF_ENDPOINT and proxies"
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
