from trialbook.report import leaderboard, ranks
from trialbook.testing import completed, failed
from trialbook.trial import Record, Trial


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


def test_ranks_put_the_last_rung_first_and_failures_last():
    assert ranks(HALVING, maximize=True) == [4, 3, 5, 2, 1, 5]


def test_the_leaderboard_of_a_halving_names_iteration_resources_and_standing():
    table = leaderboard(HALVING, maximize=True)
    assert table["trial"].tolist() == [4, 3, 1, 0, 2, 5]
    assert table["iter"].tolist() == [1, 1, 0, 0, 0, 1]
    assert table["n_resources"].tolist() == [30, 30, 10, 10, 10, 30]
    assert table["standing"].tolist()[:4] == ["final", "final", "promoted", "promoted"]


def test_the_leaderboard_of_another_search_has_no_such_columns():
    table = leaderboard([Record(Trial(0, {"x": 1}), completed(1.0))], maximize=True)
    assert not {"iter", "n_resources", "standing"} & set(table.columns)
