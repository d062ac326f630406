"""The final step from what is on record: once for a whole sweep, and again whenever it is asked for.

`trialbook promote=<run id>` repeats it for a search or a sweep, from the configurations on their runs, with other
settings of `promote` if so wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from trialbook import app, contact, garbage, store, tracking, workflow
from trialbook.envelope import envelope_of
from trialbook.errors import PromotionError, RequestError, TrialbookError
from trialbook.estimator import preload_keras
from trialbook.exits import sentence
from trialbook.journal import Models, SearchRun
from trialbook.noise import without_native_notes
from trialbook.progress import Terminal
from trialbook.promote import FinalStep
from trialbook.report import Registered
from trialbook.sweep_record import Searched, SweepRun, find
from trialbook.trial import State

_KEY = "promote."


@dataclass(frozen=True)
class Contest:
    """The searches whose winners compete for one registered model.

    Attributes:
        name: The registered model.
        searches: Those that have a best trial, with their configurations.
    """

    name: str
    searches: Sequence[tuple[Searched, DictConfig]]

    def winner(self) -> tuple[Searched, DictConfig]:
        """The search with the best trial, the first on a tie.

        A trial that a halving search judged on few rows, as it was cut short, does not beat one judged on all.

        Raises:
            RequestError: If their objectives cannot be compared.
        """
        best = self.searches[0]
        for candidate in self.searches[1:]:
            ours, theirs = best[0].measure, candidate[0].measure
            if ours != theirs:
                what = ("objectives", "directions", "test rows")
                differ = next((w, a, b) for w, a, b in zip(what, ours, theirs, strict=True) if a != b)
                raise RequestError(
                    f"the searches for {self.name} cannot be compared: they have different {differ[0]}, such as "
                    f"{differ[1]} and {differ[2]}; name a model for each, for example with "
                    "promote.registered_model='${data.name}_${objective.metric}'."
                )
            if candidate[0].merit < best[0].merit:
                best = candidate
        return best


def contests(searches: Sequence[Searched], changes: Sequence[str] = ()) -> list[Contest]:
    """Who competes with whom: one contest for each registered model that the searches name.

    Args:
        searches: The searches, of which those that are complete take part.
        changes: Overrides of `promote.…` in place of what the searches were configured with.
    """
    by_name: dict[str, list[tuple[Searched, DictConfig]]] = {}
    for searched in searches:
        cfg = searched.config()
        cfg.merge_with_dotlist(list(changes))
        if cfg.promote.enabled:
            by_name.setdefault(app.registered_model(cfg) or searched.data_name, []).append((searched, cfg))
    return [Contest(name, taking_part) for name, taking_part in by_name.items()]


def take(contest: Contest, uri: str, parent: str, terminal: Terminal) -> Registered:
    """Retrain the winner, test it, register it.

    Args:
        contest: Who competes for the name.
        uri: Address of the store.
        parent: The run below which the retrain run is put: the sweep's, or the search's own.
        terminal: Where to say what is being done.

    Raises:
        RequestError: If the searches cannot be compared, or the data are not what they were.
        PromotionError: If it fails.
    """
    searched, cfg = contest.winner()
    cfg.tracking.uri = uri
    with terminal.step(f"Preparing the final step for {contest.name}"), without_native_notes(), garbage.uncollected():
        plan = app.compose(cfg, searched.choices)
        if plan.trains_in_epochs:
            preload_keras()
    for name, digest in (("data", plan.data.digest), ("test", plan.data.test_digest)):
        if searched.tags[f"trialbook.{name}_digest"] != digest:
            raise RequestError(f"search run {searched.run_id} cannot be promoted: its data have changed since.")
    pickled = cfg.tracking.allow_pickle
    below = SearchRun(
        store.Store(uri, cfg.tracking.outage_timeout),
        parent,
        searched.run.info.experiment_id,
        tags={f"trialbook.{name}": choice for name, choice in searched.choices.items()},
        envelope=envelope_of(plan.estimator, plan.data.X, plan.data.y, allow_pickle=pickled),
        maximize=plan.objective.maximize,
        models=Models(),
    )
    step = FinalStep(
        store.client(uri),
        below,
        searched.run_id,
        plan.estimator,
        plan.data,
        plan.objective,
        contest.name,
        allow_pickle=pickled,
    )
    with terminal.step(f"Retraining the best hyperparameters ({searched.title}), testing, registering"):
        promotion = step(searched.best)
    return Registered(workflow.registered(promotion, plan), f"models:/{promotion.name}@{promotion.alias}")


def repeat(cfg: DictConfig, overrides: Sequence[str], terminal: Terminal) -> None:
    """Repeat the final step of the run that `promote.run` names.

    Args:
        cfg: The configuration of this call, of which `promote` and `tracking.uri` count.
        overrides: Its overrides.
        terminal: Where to say what is being done.

    Raises:
        RequestError: If there is no such run, or it has nothing to promote.
        PromotionError: If a final step fails; those for other names are taken nevertheless.
    """
    uri = store.resolve_uri(cfg.tracking.uri)
    contact.reach(uri)
    changes = [word for word in overrides if word.startswith(_KEY)]
    for word in overrides:
        if not word.startswith((_KEY, "tracking.uri=")):
            raise RequestError(f"{word} has no meaning for promote=<run id>, where only promote.… may be set.")
    run = find(uri, str(cfg.promote.run))
    kind = None if run is None else run.data.tags.get(tracking.KIND)
    if kind not in ("search", "sweep"):
        raise RequestError(f"promote={cfg.promote.run} is not a search or sweep run of this store; give the id of one.")
    searches = [Searched(run, uri)] if kind == "search" else complete(SweepRun(uri, run.info.run_id).searches())
    held = contests(searches, [*changes, "promote.enabled=true"])
    if not held:
        raise RequestError(f"promote={cfg.promote.run} has no search that is complete.")
    registered, failures = take_all(held, uri, run.info.run_id, terminal)
    for each in registered:
        terminal.say(each.said)
    if failures:
        raise PromotionError(" ".join(failures))


def take_all(held: Sequence[Contest], uri: str, parent: str, terminal: Terminal) -> tuple[list[Registered], list[str]]:
    """Take the final step for every name; one that fails keeps none of the others from it.

    Returns:
        What was registered, and for each name under which nothing was, why, in a sentence.
    """
    registered: list[Registered] = []
    failures: list[str] = []
    for contest in held:
        try:
            registered.append(take(contest, uri, parent, terminal))
        except TrialbookError as error:
            failures.append(f"Nothing was registered as {contest.name}: {sentence(error)}")
    return registered, failures


def complete(searches: Sequence[Searched]) -> list[Searched]:
    """Those that have ended well."""
    return [searched for searched in searches if searched.state is State.COMPLETE]
