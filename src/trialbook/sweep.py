"""A sweep: the searches of one multirun below one run, and one final step for all of them.

Hydra's sweeper says which searches there are, and its launcher where they run; both are the user's choice. Hydra calls
`Callback` before the first of them, which opens the sweep's run and tells every job of it. When Hydra is done, the
command calls `Sweep.finish`.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback as HydraCallback
from omegaconf import DictConfig, OmegaConf, open_dict

from trialbook import garbage
from trialbook.credentials import without_credentials
from trialbook.errors import RequestError
from trialbook.exits import DONE, FAILED, INTERRUPTED, REFUSED

if TYPE_CHECKING:
    from trialbook.claim import Claim
    from trialbook.progress import Terminal
    from trialbook.sweep_job import Permit
    from trialbook.sweep_record import SweepRun


class Refused(BaseException):
    """Stops Hydra before the first job. Hydra makes warnings of a callback's other exceptions.

    Args:
        why: What was wrong.
    """

    def __init__(self, why: Exception) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class Sweep:
    """The sweep of this command, if it turns out to be one.

    Attributes:
        run: Its run; None before it has begun, and for a dry run.
        interrupted: Whether it is to stop.
        words: The words of the command that asks for the same again.
    """

    run: SweepRun | None = None
    interrupted: bool = False
    words: Sequence[str] = ()
    _permit: Permit | None = None
    _handlers: dict[signal.Signals, Any] = field(default_factory=dict)
    _claim: Claim | None = None

    def begin(self, config: DictConfig, config_name: str | None) -> None:
        """Check what all jobs have in common, open the sweep's run, and tell the jobs of it.

        Args:
            config: Hydra's configuration of the multirun; what is added to its overrides, every job is given.
            config_name: The primary configuration.

        Raises:
            RequestError: If no job could run as asked; then nothing has been recorded.
        """
        from trialbook import sweep_request
        from trialbook.sweep_job import PARENT_KEY, Permit

        jobs = sweep_request.compositions(config, config_name)
        sweep_request.check(jobs)
        self.words = sweep_request.words_of(config)
        if not jobs[0].dry_run:
            self.run = self._open(jobs[0])
        added = sweep_request.same_epoch(jobs, config.hydra.overrides.task)
        if added:
            _say("Every search of this sweep judges nets at their best epoch, so that they compare (objective.epoch).")
        if self.run is not None:
            added.append(f"{PARENT_KEY}='{self.run.run_id}'")
        with open_dict(config):
            config.hydra.overrides.task = [*sweep_request.without_parent(config.hydra.overrides.task), *added]
        self._permit = Permit.of(str(config.hydra.sweep.dir))
        self._permit.issue()
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._handlers[signum] = signal.signal(signum, self._interrupt)
        garbage.collect_again()

    def _open(self, cfg: DictConfig) -> SweepRun:
        """Open the run, or go on with the one that the configuration names."""
        from trialbook import claim, contact, store, tracking
        from trialbook.outage import STORE_ERRORS
        from trialbook.sweep_record import CONFIG_FILE, OVERRIDES_FILE, SweepRun

        uri, title = store.resolve_uri(cfg.tracking.uri), f"sweep {_shown(self.words)}"
        contents = {CONFIG_FILE: OmegaConf.to_yaml(cfg), OVERRIDES_FILE: OmegaConf.to_yaml(list(self.words))}
        files = {name: without_credentials(content) for name, content in contents.items()}
        contact.reach(uri)
        store.Store(uri).open()
        try:
            if cfg.sweep.run_id is None:
                adopt = os.environ.get("MLFLOW_RUN_ID")
                run = SweepRun.open(uri, title, adopt=adopt, experiment=cfg.tracking.experiment, files=files)
            else:
                run = SweepRun.take_up(uri, cfg.sweep.run_id)
        except STORE_ERRORS as error:
            where = without_credentials(uri)
            raise RequestError(f"tracking.uri={where} cannot be used: {store.one_line(error)}") from error
        underway = f"A sweep, under way. If it is interrupted, go on with:\n\n    {self._resume_command(run)}\n"
        tracking.set_tags(run.client, run.run_id, {tracking.NOTE: underway})
        _say(f"Sweep of {_shown(self.words)}, run {run.run_id}")
        self._claim = claim.Claim(run.client, run.run_id).__enter__()
        return run

    def _resume_command(self, run: SweepRun) -> str:
        where = [word for word in self.words if word.startswith("tracking.uri=")]
        return _shown(["trialbook", f"resume={run.run_id}", *where])

    def _interrupt(self, signum: int, frame: object) -> None:
        """The first time, let the searches stop in order; the second, leave."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        assert self._permit is not None
        self._permit.withdraw()
        # Not print: it may be that which was interrupted.
        os.write(2, b"\nInterrupted: the searches are being stopped; once more to leave at once.\n")

    def finish(self, code: int) -> int:
        """Take the final step, write down what became of the sweep, and say it.

        Args:
            code: The exit code so far.

        Returns:
            The exit code.
        """
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        if self.run is None:
            return INTERRUPTED if self.interrupted else code
        from trialbook.progress import Terminal

        terminal, twice = Terminal(), self.interrupted and code == INTERRUPTED
        if not self.interrupted and code != INTERRUPTED:
            try:
                return self._conclude(self.run, code, terminal)
            except KeyboardInterrupt:
                pass
            except Exception:
                self._end("FAILED")
                raise
        if not twice:
            self.run.close_left_open()
            self._end("KILLED")
        terminal.say(f"Interrupted. Go on with: {self._resume_command(self.run)}")
        return INTERRUPTED

    def _conclude(self, run: SweepRun, code: int, terminal: Terminal) -> int:
        from trialbook import final_step, store, sweep_result, workflow
        from trialbook.report import HowTo

        run.close_left_open()
        searches = run.searches()
        if all(searched.refused for searched in searches):
            self._end("FAILED")
            run.take_back(searches)
            return REFUSED if code == DONE else code
        contests = final_step.contests(final_step.complete(searches))
        registered, failures = final_step.take_all(contests, run.uri, run.run_id, terminal)
        command = _shown(["trialbook", "--multirun", *self.words])
        how_to = HowTo(command, self._resume_command(run), without_credentials(run.uri))
        outcome = sweep_result.Outcome(run, searches, registered, how_to)
        with terminal.step("Writing the sweep's report"):
            sweep_result.publish(outcome)
        sweep_result.show(outcome, terminal)
        for said in [*(each.said for each in registered), *failures]:
            terminal.say(said)
        hint = workflow.ui_hint(store.Store(run.uri), run.experiment_id)
        terminal.say(f"Compare its trials: {hint}")
        well = code == DONE and not failures and not outcome.failed
        self._end("FINISHED" if well else "FAILED")
        return DONE if well else FAILED

    def _end(self, status: str) -> None:
        """Close the sweep's run, and let others go on with it."""
        assert self.run is not None
        self.run.client.set_terminated(self.run.run_id, status)
        if self._claim is not None:
            self._claim.__exit__()


_expected: ContextVar[Sweep] = ContextVar("sweep")


@contextmanager
def expected() -> Iterator[Sweep]:
    """The sweep that Hydra begins if this command is a multirun."""
    token = _expected.set(Sweep())
    try:
        yield _expected.get()
    finally:
        _expected.reset(token)


class Callback(HydraCallback):
    """Hydra calls this before a multirun, because `conf/config.yaml` names it."""

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **_: Any) -> None:
        """Begin the sweep."""
        try:
            _expected.get().begin(config, config_name)
        except Exception as error:
            raise Refused(error) from error


def _say(line: str) -> None:
    from trialbook.progress import Terminal

    Terminal().say(line)


def _shown(words: Sequence[str]) -> str:
    return without_credentials(shlex.join(words))
