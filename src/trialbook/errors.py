"""What can go wrong, as one tree.

::

    TrialbookError
    ├── RequestError (ValueError)           the request was wrong: nothing has run; exit code 2
    │   ├── SpaceError                      the search space
    │   ├── NotAllowedError                 code that the configuration names and may not run
    │   ├── DataError                       the data set
    │   └── ModelError                      the estimator or its builder
    ├── TrialError (RuntimeError)           one trial failed: the search goes on
    │   ├── NonFiniteObjective (ArithmeticError)
    │   ├── NotRecorded                     the store refuses what belongs to it
    │   ├── WorkerDied                      the process that ran it is gone
    │   └── TrialTimeout                    it took longer than it may
    └── SearchError (RuntimeError)          the search as a whole failed; exit code 1
        ├── NoTrialCompleted
        ├── TooManyFailures
        ├── ExecutorError                   no worker can run trials any more
        ├── PromotionError                  the final step
        ├── StoreError                      the MLflow store cannot be written to any more
        └── ClaimLost                       another process has taken the search over

Every message is one sentence that says what was given and what is allowed.
"""

import errno
from collections.abc import Iterator


class TrialbookError(Exception):
    """Base of everything Trialbook raises on purpose."""


class RequestError(TrialbookError, ValueError):
    """The request cannot be carried out as given; nothing has been run for it."""


class SpaceError(RequestError):
    """A search space that is malformed, or that the chosen search cannot use."""


class NotAllowedError(RequestError):
    """Code that a configuration names and that it may not run, see `trialbook.allowed`."""


class DataError(RequestError):
    """A data set that cannot be read, split or learned from."""


class ModelError(RequestError):
    """An estimator or builder that cannot be used as asked."""


class TrialError(TrialbookError, RuntimeError):
    """One trial failed; the search goes on without it."""


class NonFiniteObjective(TrialError, ArithmeticError):
    """A trial whose objective is NaN or infinite: a failure, never a best."""


class NotRecorded(TrialError):
    """The store refuses what a trial puts on record; another attempt may fare better."""


class WorkerDied(TrialError):
    """The process that ran a trial ended before the trial did; another attempt may fare better."""


class TrialTimeout(TrialError):
    """A trial ran for longer than it may, and was killed with its process."""


class SearchError(TrialbookError, RuntimeError):
    """The search ran and failed as a whole."""


class NoTrialCompleted(SearchError):
    """No trial of the search completed, so there is nothing to retrain or register."""


class TooManyFailures(SearchError):
    """As many trials failed as the budget lets fail."""


class ExecutorError(SearchError):
    """No worker can run trials any more, whatever the trials; the search can be gone on with."""


class PromotionError(SearchError):
    """The final step failed after the search had ended well."""


class StoreError(SearchError):
    """The store has been away for too long, or its disk is full; the search can be resumed when it is back."""


class ClaimLost(SearchError):
    """Another process, which thought this one dead, has taken the search over."""


def disk_is_full(error: BaseException) -> bool:
    """Whether an error comes from a full disk, here or under a database."""
    import sqlite3

    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        if getattr(cause, "sqlstate", None) == "53100" or "No space left on device" in str(cause):
            return True
    return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those it was raised from or while handling."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
