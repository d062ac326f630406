import pytest

from trialbook.testing import completed, failed
from trialbook.trial import Record, Trial, beats, best_first, best_record, standings


def record(number, objective, *, iteration=0, of=2, candidate=0):
    details = {"iteration": iteration, "resources": 10 * 3**iteration, "candidate": candidate}
    trial = Trial(number, {"x": candidate}, rungs_above=of - 1 - iteration, details=details)
    return Record(trial, failed() if objective is None else completed(objective))


HALVING = [
    record(0, 0.9, candidate=0),
    record(1, 1.0, candidate=1),
    record(2, None, candidate=2),
    record(3, 0.7, iteration=1, candidate=0),
    record(4, 0.8, iteration=1, candidate=1),
    record(5, None, iteration=1, candidate=3),
]


@pytest.mark.parametrize(("maximize", "numbers"), [(True, [4, 3, 1, 0]), (False, [3, 4, 0, 1])])
def test_a_score_on_few_resources_never_beats_one_on_more(maximize, numbers):
    assert [r.trial.number for r in best_first(HALVING, maximize=maximize)] == numbers
    assert best_record(HALVING, maximize=maximize).trial.number == numbers[0]


def test_the_first_complete_trial_beats_none_and_a_failure_beats_nothing():
    assert beats(HALVING[0], None, maximize=True)
    assert not beats(HALVING[2], None, maximize=True)
    assert not beats(HALVING[2], HALVING[0], maximize=True)
    assert beats(HALVING[3], HALVING[1], maximize=True)
    assert not beats(HALVING[0], HALVING[0], maximize=True)


def test_standings_tell_survivors_from_the_eliminated():
    assert standings(HALVING) == {0: "promoted", 1: "promoted", 2: "eliminated", 3: "final", 4: "final", 5: "final"}
    assert set(standings(HALVING[:3]).values()) == {"undecided"}
    assert standings([Record(Trial(0, {}), completed(1.0))]) == {}
