"""How the command ends: its exit codes, and the sentence an error ends in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How something ended that the command was asked for.

    Attributes:
        code: The exit code.
        value: What came of it, None if nothing did.
        reason: Why it failed or was refused, in a sentence.
    """

    code: int
    value: T | None = None
    reason: str | None = None


def ending(run: Callable[[], T]) -> Ended[T]:
    """Run something; what goes wrong as it may is said on standard error."""
    from omegaconf.errors import OmegaConfBaseException

    from trialbook.errors import RequestError, SearchError

    try:
        return Ended(DONE, run())
    except (RequestError, OmegaConfBaseException) as error:
        return Ended(refuse(sentence(error)), reason=sentence(error))
    except SearchError as error:
        print(f"trialbook: {error}", file=sys.stderr)
        return Ended(FAILED, reason=str(error))


def refuse(message: str) -> int:
    """Say why a request is refused; returns the exit code for that."""
    print(f"trialbook: {message}", file=sys.stderr)
    return REFUSED


def sentence(error: BaseException) -> str:
    """The first lines of a message that Hydra or OmegaConf wrote over several."""
    cause = error.__cause__
    text = str(error) if cause is None or isinstance(error, ValueError) else f"{error} {cause}"
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=", "See http")))
