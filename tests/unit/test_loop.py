import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from trialbook.errors import ExecutorError, RequestError, TrialTimeout, WorkerDied
from trialbook.executors import SerialExecutor
from trialbook.search import loop
from trialbook.search.loop import Budget
from trialbook.testing import MemoryJournal, completed, failed
from trialbook.trial import Result, State, Trial, better


class Counting:
    """Proposes a fixed number of trials, and remembers what it is told."""

    def __init__(self, n):
        self.total = n
        self.asked = 0
        self.told = []

    def ask(self):
        if self.asked == self.total:
            return None
        self.asked += 1
        return Trial(self.asked - 1, {"x": self.asked - 1})

    def tell(self, trial, result):
        self.told.append((trial.number, result.state))


def run(search, work, journal=None, **options):
    return loop.run(search, SerialExecutor(), work, journal or MemoryJournal(), **options)


def test_every_trial_is_opened_run_closed_and_told_in_order():
    search, journal = Counting(3), MemoryJournal()
    outcome = run(search, lambda trial, log: completed(trial.number), journal)
    assert [t.number for t in journal.opened] == [0, 1, 2]
    assert search.told == [(i, State.COMPLETE) for i in range(3)]
    assert outcome.best.trial.number == 2
    assert outcome.stopped == "the search space is exhausted"


def test_minimizing_takes_the_least_and_a_tie_goes_to_the_earlier():
    scores = [3.0, 1.0, 1.0, 2.0]
    outcome = run(Counting(4), lambda trial, log: completed(scores[trial.number]), maximize=False)
    assert outcome.best.trial.number == 1


def test_failed_trials_are_told_and_never_best():
    search = Counting(3)
    outcome = run(search, lambda trial, log: failed() if trial.number == 1 else completed(-trial.number))
    assert search.told[1] == (1, State.FAILED)
    assert outcome.best.trial.number == 0
    assert len(outcome.records) == 3


def test_an_interrupt_closes_the_running_trial_as_killed_and_passes_through():
    journal = MemoryJournal()

    def work(trial, log):
        if trial.number == 1:
            raise KeyboardInterrupt
        return completed(0.0)

    with pytest.raises(KeyboardInterrupt):
        run(Counting(3), work, journal)
    assert [r.result.state for r in journal.records] == [State.COMPLETE, State.KILLED]


def test_results_that_arrive_together_are_told_in_the_order_asked():
    search = Counting(20)
    with ThreadPoolExecutor(4) as executor:
        loop.run(search, executor, lambda trial, log: completed(0.0), MemoryJournal(), workers=20)
    assert sorted(number for number, _ in search.told) == list(range(20))


@pytest.mark.parametrize(
    ("budget", "trials", "stopped"),
    [
        (Budget(max_trials=2), 2, "max_trials=2 reached"),
        (Budget(patience=3), 4, "3 trials without improvement"),
        (Budget(target=0.0), 1, "target 0 reached"),
        (Budget(max_time=0.0), 0, "max_time=0 s reached"),
        (Budget(max_time=1e9, reserve=1 - 1e-15), 0, "max_time=1e+09 s reached"),
    ],
)
def test_the_budget_ends_the_search(budget, trials, stopped):
    outcome = run(Counting(10), lambda trial, log: completed(-trial.number), budget=budget)
    assert len(outcome.records) == trials
    assert outcome.stopped == stopped


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"max_trials": 0}, "budget.max_trials must be a whole number of at least 1, or null; got 0"),
        ({"max_time": -1}, "budget.max_time must be a number of at least 0"),
        ({"patience": "x"}, "budget.patience must be a whole number"),
        ({"reserve": 1.0}, "budget.reserve must be a share from 0 to below 1"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(budget, said):
    with pytest.raises(RequestError, match=said):
        Budget(**budget)


@pytest.mark.parametrize("objective", [None, math.nan, math.inf, -math.inf])
def test_a_complete_result_needs_a_finite_objective(objective):
    with pytest.raises(ValueError, match="finite"):
        Result(State.COMPLETE, objective=objective)


@pytest.mark.parametrize(
    ("a", "b", "maximize", "expected"),
    [
        (2, 1, True, True),
        (1, 2, True, False),
        (1, 2, False, True),
        (1, 1, True, False),
        (math.nan, 1, True, False),
        (1, math.nan, True, True),
        (math.inf, 1, True, False),
        (1, math.inf, False, True),
    ],
)
def test_better(a, b, maximize, expected):
    assert better(a, b, maximize=maximize) is expected


class TwoRungs(Counting):
    """The first half of its trials have a rung above them."""

    def ask(self):
        trial = super().ask()
        return trial and dataclasses.replace(trial, rungs_above=int(trial.number < self.total // 2))


def test_the_best_is_of_the_last_rung():
    outcome = run(TwoRungs(4), lambda trial, log: completed(-trial.number))
    assert outcome.best.trial.number == 2


def test_a_target_is_not_reached_on_part_of_the_resources():
    outcome = run(TwoRungs(6), lambda trial, log: completed(1.0), budget=Budget(target=0.5))
    assert [r.trial.number for r in outcome.records] == [0, 1, 2, 3]
    assert outcome.stopped == "target 0.5 reached"


def test_a_new_rung_counts_as_an_improvement():
    outcome = run(TwoRungs(8), lambda trial, log: completed(-trial.number), budget=Budget(patience=3))
    assert len(outcome.records) == 4
    outcome = run(TwoRungs(6), lambda trial, log: completed(-trial.number), budget=Budget(patience=3))
    assert len(outcome.records) == 6


class Flaky:
    """Runs trials; those it names go wrong in so many of their attempts."""

    def __init__(self, failures, error):
        self.failures = dict(failures)
        self.error = error

    def __call__(self, trial, log):
        if self.failures.get(trial.number, 0):
            self.failures[trial.number] -= 1
            if isinstance(self.error, Exception):
                raise self.error
            return self.error
        return completed(float(trial.number))


PASSING = Result(State.FAILED, reason="OSError: away", may_pass=True)


@pytest.mark.parametrize("error", [WorkerDied("its worker was killed"), PASSING])
def test_what_may_pass_is_tried_again_and_leaves_one_result(error):
    search, journal = Counting(3), MemoryJournal()
    outcome = run(search, Flaky({1: 2}, error), journal, retries=2)
    assert [t.number for t in journal.opened] == [0, 1, 1, 1, 2]
    assert [t.number for t, _ in journal.retried] == [1, 1]
    assert search.told == [(i, State.COMPLETE) for i in range(3)]
    assert len(outcome.records) == len(journal.records) == 3


def test_a_trial_that_fails_in_every_attempt_fails_and_the_search_goes_on():
    search, journal = Counting(3), MemoryJournal()
    run(search, Flaky({0: 9}, WorkerDied("its worker was killed")), journal, retries=1)
    assert [t.number for t in journal.opened] == [0, 0, 1, 2]
    assert search.told == [(0, State.FAILED), (1, State.COMPLETE), (2, State.COMPLETE)]
    assert journal.records[0].result.reason == "WorkerDied: its worker was killed"


@pytest.mark.parametrize("error", [TrialTimeout("it was killed after 5 s"), failed()])
def test_what_would_fail_again_is_not_tried_again(error):
    search, journal = Counting(2), MemoryJournal()
    run(search, Flaky({0: 9}, error), journal, retries=5)
    assert [t.number for t in journal.opened] == [0, 1]
    assert search.told == [(0, State.FAILED), (1, State.COMPLETE)]


def test_the_end_of_the_executor_ends_the_search_and_leaves_no_trial_open():
    journal = MemoryJournal()
    with pytest.raises(ExecutorError):
        run(Counting(3), Flaky({1: 1}, ExecutorError("no workers")), journal, retries=5)
    assert [r.result.state for r in journal.records] == [State.COMPLETE, State.KILLED]


def test_too_many_failures_end_the_search_as_failed():
    outcome = run(Counting(9), Flaky({1: 1, 3: 1, 4: 1}, failed()), budget=Budget(max_failures=2))
    assert [r.trial.number for r in outcome.records] == [0, 1, 2, 3]
    assert outcome.failed
    assert outcome.stopped == "max_failures=2 reached"


def test_fewer_failures_do_not():
    outcome = run(Counting(5), Flaky({1: 1, 3: 1}, failed()), budget=Budget(max_failures=3))
    assert len(outcome.records) == 5
    assert not outcome.failed


def test_the_journal_hears_of_the_hurry_before_workers_are_stopped_and_their_trials_closed():
    happened = []

    class Executor(SerialExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            happened.append("stopped")

    class Journal(MemoryJournal):
        def hurry(self):
            happened.append("in a hurry")

        def close(self, trial, log, result):
            happened.append(result.state)
            return super().close(trial, log, result)

    def work(trial, log):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(Counting(1), Executor(), work, Journal())
    assert happened == ["in a hurry", "stopped", State.KILLED]
