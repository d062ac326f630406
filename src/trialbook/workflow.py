"""The walk of one job: search, retrain, test, register, report."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trialbook import claim, contact, garbage, report, resume, tracking
from trialbook.data import Dataset
from trialbook.envelope import Envelope, envelope_of
from trialbook.errors import (
    ExecutorError,
    NoTrialCompleted,
    RequestError,
    SearchError,
    StoreError,
    TooManyFailures,
)
from trialbook.estimator import preload_keras
from trialbook.evaluate import Evaluator, load_libraries
from trialbook.executors import TrialExecutor
from trialbook.journal import Models, SearchRun
from trialbook.outage import STORE_ERRORS
from trialbook.plan import Plan
from trialbook.progress import Terminal
from trialbook.promote import FinalStep, Promotion
from trialbook.rehearsal import rehearse
from trialbook.scribe import Scribe
from trialbook.search import loop
from trialbook.space import Space
from trialbook.store import Store, one_line
from trialbook.sweep_record import SWEEP, Job, SweepRun
from trialbook.trial import Record, State

LOCAL_UI = "http://127.0.0.1:5000"
# Or else MLflow's UI begins with what it has for applications of language models.
_TRAINING = "workflowType=machine_learning"

_PREVIEWED = 10


@dataclass(frozen=True)
class Tracking:
    """Where and how a search is recorded.

    Attributes:
        store: The MLflow store.
        experiment: Name of the experiment, unless `adopt` already belongs to one.
        adopt: Id of a run to use as the search run, such as the one `mlflow run` makes.
        resume: Whether that run is a search to go on with.
        models: Which trials' models to keep.
        registered_model: Name to register the winner under; None for no final step.
        allow_pickle: Whether models may be saved that run their own code when they are loaded.
        job: The job of a sweep that it is, which leaves the final step to the sweep; None for a search by itself.
    """

    store: Store
    experiment: str
    adopt: str | None
    resume: bool
    models: Models
    registered_model: str | None
    allow_pickle: bool = False
    job: Job | None = None


@dataclass(frozen=True)
class Provenance:
    """How a search came to be run.

    Attributes:
        config: The composed configuration, as YAML.
        overrides: The overrides, as YAML.
        command: The command that runs the same again.
        again: What resuming it must be told again: flags, and the override that names the store.
        language: What the commands are written in: `bash` or `python`.
        sweep: The sweep run to go on with in place of the search; None for a search by itself.
    """

    config: str
    overrides: str
    command: str
    again: str = ""
    language: str = "bash"
    sweep: str | None = None

    def resume_command(self, run_id: str) -> str:
        """The command that goes on with an interrupted search."""
        return " ".join(word for word in ("trialbook", f"resume={self.sweep or run_id}", self.again) if word)


@dataclass(frozen=True)
class Finished:
    """What a job leaves: the search run and its address, every trial, the best one, and what was registered."""

    experiment_id: str
    run_id: str
    url: str
    records: Sequence[Record]
    best: Record
    promotion: Promotion | None


def run(plan: Plan, executor: TrialExecutor, record: Tracking, provenance: Provenance, terminal: Terminal) -> Finished:
    """Run a planned search to its end. The executor's workers end with the search, before the final step.

    Raises:
        RequestError: If the plan's parts do not fit together, the store cannot be used, or there can be no workers;
            then nothing has been recorded.
        NoTrialCompleted: If every trial failed.
        TooManyFailures: If as many failed as the budget lets fail.
        ExecutorError: If there are no workers any more.
        PromotionError: If the final step failed; the search itself is complete and on record.
        StoreError: If the store was away for too long, or is full.
        ClaimLost: If another process has taken the search over.
    """
    evaluator = plan.evaluator(keep_models=record.models.any)
    # Workers load their libraries while the store is opened.
    nets = plan.trains_in_epochs
    prepare = functools.partial(load_libraries, nets=nets, store=executor.workers_write)
    executor.start(evaluator, prepare, leaves_memory=nets)
    # Nets keep Python busy, as does writing to a local store.
    with Scribe() if nets and executor.in_driver and record.store.is_file else contextlib.nullcontext() as scribe:
        garbage.collect_left()
        garbage.leave(evaluator)
        return _walk(plan, evaluator, executor, record, provenance, terminal, scribe)


def _walk(
    plan: Plan,
    evaluator: Evaluator,
    executor: TrialExecutor,
    record: Tracking,
    provenance: Provenance,
    terminal: Terminal,
    scribe: Scribe | None,
) -> Finished:
    """The rest of `run`, with whoever writes the trials down if that is another process."""
    with garbage.uncollected():
        client, journal = _opened(plan, record, provenance, terminal)
    terminal.say(f"{plan.title}: {_trials(plan)}, run {journal.run_id}")
    if (said := getattr(plan.search, "note", None)) is not None:
        terminal.say(said)
    with claim.Claim(client, journal.run_id) as held:
        done = loop.replay(plan.search, journal, maximize=plan.objective.maximize, earlier=journal.seconds)
        on_record = tuple(done.records)
        with tracking.closing(client, journal.run_id), _saying_how_to_resume(journal, held, provenance, terminal):
            had_finished = journal.reopen() if record.resume else False
            _wait_for_workers(executor, terminal)
            with (
                terminal.search(plan.total, maximize=plan.objective.maximize, done=on_record) as progress,
                _written_by(scribe, journal) as writing,
            ):
                outcome = loop.run(
                    plan.search,
                    executor,
                    evaluator,
                    writing,
                    workers=executor.workers,
                    retries=executor.retries,
                    maximize=plan.objective.maximize,
                    budget=plan.budget,
                    observer=progress,
                    progress=done,
                )
            executor.shutdown()
            outcome = outcome.as_recorded(journal.records, maximize=plan.objective.maximize)
            journal.finish(outcome.best)
            summary = _summary(plan, outcome, record, provenance, journal.run_id)
            if outcome.best is None or outcome.failed:
                _publish(client, journal.run_id, summary)
                raise _failure(outcome)
            terminal.leaderboard(outcome.records, plan.objective.metric, maximize=plan.objective.maximize)
            step = promotion = None
            if record.registered_model is not None and record.job is None:
                step = FinalStep(
                    client,
                    journal,
                    journal.run_id,
                    plan.estimator,
                    plan.data,
                    plan.objective,
                    record.registered_model,
                    allow_pickle=record.allow_pickle,
                    nets=plan.nets,
                )
                promotion = step.recall(outcome.best)
            idle = had_finished and len(outcome.records) == len(on_record) and (step is None or promotion is not None)
            try:
                if step is not None:
                    if promotion is None:
                        with terminal.step("Retraining the best hyperparameters, testing, registering"):
                            promotion = step(outcome.best)
                    summary = replace(
                        summary,
                        registered=report.Registered(
                            registered(promotion, plan), f"models:/{promotion.name}@{promotion.alias}"
                        ),
                    )
            finally:
                with terminal.step("Writing the report"):
                    _publish(client, journal.run_id, summary)
    if idle:
        terminal.say(f"Nothing more to do: {outcome.stopped}.")
    if summary.registered:
        terminal.say(summary.registered.said)
    url = page_of(record.store, journal.experiment_id, journal.run_id)
    return Finished(journal.experiment_id, journal.run_id, url, outcome.records, outcome.best, promotion)


def _opened(plan: Plan, record: Tracking, provenance: Provenance, terminal: Terminal) -> tuple[MlflowClient, SearchRun]:
    """The store's client and the search run, once all is there that the trials need."""
    if plan.trains_in_epochs:
        # For the rehearsal, wherever the trials run.
        with terminal.step("Loading Keras and TensorFlow"):
            preload_keras()
        garbage.set_aside()
    saved = record.models.any or record.registered_model is not None
    rehearse(plan, saved=saved, allow_pickle=record.allow_pickle)
    if plan.trains_in_epochs:
        gc.collect()  # nets refer to themselves, those of the rehearsal too
    with terminal.step(f"Opening {record.store.shown}"):
        contact.reach(record.store.uri)
        client = record.store.open()
        try:
            return client, _open(client, plan, record, provenance)
        except STORE_ERRORS as error:
            raise RequestError(f"tracking.uri={record.store.shown} cannot be used: {one_line(error)}") from error


def _written_by(scribe: Scribe | None, journal: SearchRun) -> contextlib.AbstractContextManager[Scribe | SearchRun]:
    """Who writes the journal of the trials: the other process, if there is one and the artifacts are files as well."""
    if scribe is not None and journal.keeps_files:
        return scribe.writing(journal)
    return contextlib.nullcontext(journal)


def page_of(store: Store, experiment_id: str, run_id: str | None = None) -> str:
    """The page of a run, or of all of an experiment's, in the UI: of the store's server, or as `ui_hint` starts it."""
    server = store.shown.rstrip("/") if store.is_server else LOCAL_UI
    runs = "runs" if run_id is None else f"runs/{run_id}"
    return f"{server}/#/experiments/{experiment_id}/{runs}?{_TRAINING}"


def ui_hint(store: Store, experiment_id: str) -> str:
    """How to look at a finished search: the page on the server, or the command that starts one first."""
    page = page_of(store, experiment_id)
    if store.is_server:
        return page
    return f"mlflow ui --backend-store-uri {shlex.quote(store.shown)}, then open {page}"


@contextlib.contextmanager
def _saying_how_to_resume(
    journal: SearchRun, held: claim.Claim, provenance: Provenance, terminal: Terminal
) -> Iterator[None]:
    command = provenance.resume_command(journal.run_id)
    try:
        yield
    except KeyboardInterrupt:
        journal.hurry()
        held.check()
        terminal.say(f"Interrupted. Go on with: {command}")
        raise
    except ExecutorError:
        terminal.say(f"Go on with: {command}")
        raise
    except (StoreError, MlflowException) as error:
        raise StoreError(f"{one_line(error)}; go on with: {command}") from error


def _wait_for_workers(executor: TrialExecutor, terminal: Terminal) -> None:
    if executor.in_driver:
        return
    with terminal.step(f"Starting {executor.workers} workers"):
        report.load_libraries()
        started = time.monotonic()
        executor.wait_until_ready()
    terminal.say(f"{executor.workers} workers were ready after another {time.monotonic() - started:.1f} s.")


def preview(plan: Plan, terminal: Terminal) -> None:
    """Show the first trials a search would run and how many there are, and run nothing.

    Raises:
        RequestError: If the plan's parts do not fit together.
    """
    plan.evaluator(keep_models=False)
    terminal.say(f"{plan.title}: {_trials(plan)}")
    for trial in itertools.islice(iter(plan.search.ask, None), _PREVIEWED):
        effort = [f"epochs={trial.epochs}"] if trial.epochs is not None else []
        effort += [f"rows={trial.resources}"] if trial.resources is not None else []
        terminal.say(" ".join([f"{trial.number:03d}", tracking.params_line(trial.params), *effort]))


def _open(client: MlflowClient, plan: Plan, record: Tracking, provenance: Provenance) -> SearchRun:
    """Open the search run and write down what is known before the first trial."""
    common = {"trialbook.search": plan.search_name, "trialbook.model": plan.model_name}
    experiment = record.experiment
    if record.job is not None:
        common |= {SWEEP: record.job.sweep}
        experiment = SweepRun(record.store.uri, record.job.sweep).experiment_name
    tags = common | {
        tracking.KIND: "search",
        "trialbook.metric": plan.objective.metric,
        "trialbook.direction": "maximize" if plan.objective.maximize else "minimize",
        "trialbook.data_digest": plan.data.digest,
        "trialbook.test_digest": plan.data.test_digest,
        "trialbook.folds": str(len(plan.folds)),
        "trialbook.seed": str(plan.seed),
        "trialbook.space": _described(plan.space),
        **({} if record.job is None else record.job.tags),
    }
    envelope = envelope_of(plan.estimator, plan.data.X, plan.data.y, allow_pickle=record.allow_pickle)
    if record.resume and record.adopt is not None:
        resume.check_unchanged(client.get_run(record.adopt), tags)
        claim.take_over(client, record.adopt)
    run_id, experiment_id = tracking.adopt_or_open(
        client, plan.title, tags | claim.claim_tags(), adopt=record.adopt, experiment=experiment
    )
    journal = SearchRun(
        record.store,
        run_id,
        experiment_id,
        tags=common,
        envelope=envelope,
        maximize=plan.objective.maximize,
        models=record.models,
    )
    if record.resume:
        journal.take_up()
    with contextlib.nullcontext() if record.resume else tracking.closing_on_error(client, run_id):
        client.log_text(run_id, provenance.config, resume.CONFIG)
        client.log_text(run_id, provenance.overrides, resume.OVERRIDES)
        tracking.log_datasets(client, run_id, _dataset_inputs(plan.data, envelope))
        # Until the search has ended, what matters is how to go on if it does not.
        underway = f"{plan.title}: under way. If it is interrupted, go on with:"
        command = provenance.resume_command(run_id)
        tracking.set_tags(client, run_id, {tracking.NOTE: f"{underway}\n\n    {command}\n"})
    return journal


def _described(space: Space) -> str:
    """A space in a line, so that it can be told from another."""
    fields = {d.name: {k: v for k, v in asdict(d).items() if v and k != "name"} for d in space.dimensions}
    # What stands for a distribution is named by its type: an object's own description holds its address.
    return json.dumps(fields, default=lambda value: type(value).__name__)[:8000]


def _dataset_inputs(data: Dataset, envelope: Envelope) -> list[tracking.DatasetInput]:
    """The two parts of a data set, as MLflow names what a run has read."""
    parts = (("training", data.X, data.digest), ("testing", data.X_test, data.test_digest))
    return [
        tracking.DatasetInput(
            name=data.name,
            digest=digest,
            source=data.source,
            schema=_schema(envelope),
            rows=len(X),
            elements=X.size,
            split=data.held_out,
            context=context,
        )
        for context, X, digest in parts
    ]


def _schema(envelope: Envelope) -> str:
    """The types of the features, in the two forms MLflow knows."""
    inputs = envelope.signature.inputs
    if inputs.is_tensor_spec():
        return json.dumps({"mlflow_tensorspec": {"features": inputs.to_json(), "targets": None}})
    return json.dumps({"mlflow_colspec": inputs.to_dict()})


def _publish(client: MlflowClient, run_id: str, summary: report.Summary) -> None:
    """The leaderboard, the note and the report, on the search run."""
    summary = report.observed(client, run_id, summary)
    table = report.leaderboard(summary.records, maximize=summary.maximize)
    # MLflow's own way to log a table would append to the one of an earlier, interrupted run of the search.
    client.log_text(run_id, table.to_json(orient="split", index=False), "leaderboard.json")
    client.log_text(run_id, table.to_csv(index=False), "leaderboard.csv")
    with garbage.uncollected():
        page = report.html_report(summary)
    client.log_text(run_id, page, "report.html")
    tables = json.dumps([{"path": "leaderboard.json", "type": "table"}])
    tracking.set_tags(client, run_id, {tracking.NOTE: report.note(summary), tracking.TABLES: tables})


def _summary(
    plan: Plan, outcome: loop.Outcome, record: Tracking, provenance: Provenance, run_id: str
) -> report.Summary:
    return report.Summary(
        title=plan.title,
        metric=plan.objective.metric,
        maximize=plan.objective.maximize,
        records=outcome.records,
        stopped=outcome.stopped,
        space=plan.space,
        how_to=report.HowTo(
            again=provenance.command,
            resume=provenance.resume_command(run_id),
            uri=record.store.shown,
            seed=plan.seed,
            language=provenance.language,
        ),
    )


def registered(promotion: Promotion, plan: Plan) -> str:
    """What was registered and why, in a sentence or two."""
    return (
        f"Registered {promotion.name} version {promotion.version} as {promotion.alias}: "
        f"{plan.objective.name} {promotion.test_score:.4f} on {len(plan.data.y_test)} test rows. {promotion.reason}"
    )


def _trials(plan: Plan) -> str:
    return "an unbounded number of trials" if plan.total is None else f"{plan.total} trials"


def _failure(outcome: loop.Outcome) -> SearchError:
    """Why a search has failed as a whole."""
    failed = [r for r in outcome.records if r.result.state is State.FAILED]
    if not failed:
        return NoTrialCompleted("no trial was run")
    first = f"the first because of {failed[0].result.reason}"
    if outcome.failed:
        return TooManyFailures(f"{outcome.stopped}: {len(failed)} of {len(outcome.records)} trials failed, {first}")
    return NoTrialCompleted(f"all {len(failed)} trials failed, {first}")
