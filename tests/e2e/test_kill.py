"""A driver killed with SIGKILL, anywhere, as often as it takes: what its search leaves once it has been resumed."""

import itertools
import random

import invariants
import matrix
import pytest
from drivers import Drivers

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

LINEAR = ("data=breast_cancer", "model=logistic_regression")
ONE_TRIAL = (*LINEAR, "search=sklearn/random", "search.n_iter=1")
# Of these, another process writes the trials down.
ONE_NET = (
    "data=breast_cancer",
    "model=mlp",
    "search=sklearn/random",
    "search.n_iter=1",
    "model.estimator.steps.1.1.epochs=2",
)
WITHOUT_FINAL_STEP = "promote.enabled=false"

# What makes 24 trials of each search.
TRIALS = 24
TWENTY_FOUR = {
    "sklearn/grid": (*LINEAR, "model.space.C.num=12"),
    "sklearn/random": (*LINEAR, f"search.n_iter={TRIALS}"),
    "sklearn/halving_grid": (*LINEAR, "model.space.C.num=8"),
    "sklearn/halving_random": (*LINEAR, "search.n_candidates=16", "search.min_resources=exhaust"),
    "keras_tuner/grid": (*LINEAR, "model.space.C.num=12"),
    "keras_tuner/random": (*LINEAR, f"search.oracle.max_trials={TRIALS}"),
    "keras_tuner/bayesian": (*LINEAR, f"search.oracle.max_trials={TRIALS}"),
    "keras_tuner/hyperband": (
        *("data=breast_cancer", "model=mlp", "model.space.units.low=4", "model.space.units.high=16"),
        *("model.space.units.step=4", "search.oracle.max_epochs=4", "search.oracle.factor=2"),
        *("search.oracle.hyperband_iterations=2", f"budget.max_trials={TRIALS}"),
    ),
}
KILLS = 10


def below(workplace, experiment, kind):
    """The runs of one kind in an experiment."""
    found = workplace.client.get_experiment_by_name(experiment)
    return workplace.client.search_runs([found.experiment_id], f"tags.`trialbook.kind` = '{kind}'", max_results=1000)


@pytest.fixture(scope="class", name="drivers")
def start_drivers(make_workplace_in):
    with Drivers(make_workplace_in("drivers"), "keras_tuner") as drivers:
        yield drivers


def kill_at(drivers, change, *words):
    """A search killed after a change and then resumed; returns what was done until the kill, None if it was over."""
    experiment = f"killed-{words[1].partition('=')[2]}-{change}"
    names = (f"tracking.experiment={experiment}", f"promote.registered_model={experiment}")
    killed, said, changes = drivers.run(*words, *names, kill_after=change)
    if killed is not None:
        assert killed == 0, said
        return None
    code, said, _ = drivers.run("resume=latest", f"tracking.experiment={experiment}")
    if code == 0:
        trials = below(drivers.workplace, experiment, "trial")
        assert [t.info.status for t in trials].count("FINISHED") == 1
        assert below(drivers.workplace, experiment, "search")[0].info.status == "FINISHED"
    else:
        assert code == 2, said
    return changes, said


class TestPoints:
    @pytest.mark.parametrize(("words", "ended"), [(ONE_TRIAL, 2), (ONE_NET, 1)], ids=["linear", "net"])
    def test_killed_after_any_change_before_the_final_step(self, drivers, words, ended):
        for change in itertools.count(1):
            if (killed := kill_at(drivers, change, *words, WITHOUT_FINAL_STEP)) is None:
                break
            changes, said = killed
            expected = f"sklearn/random {words[1].partition('=')[2]} on breast_cancer"
            begun = changes.count("log_artifact") >= 2
            over = changes.count("update_run_info") == ended  # of the trial, if it is the driver's, and of the search
            if over or not begun:
                expected = "finds no unfinished search"
            assert expected in said
        assert change > 15
        invariants.check(drivers.workplace)


class TestFinalStep:
    def test_killed_after_any_change_in_the_final_step(self, drivers):
        code, said, all_changes = drivers.run(*ONE_TRIAL)
        assert code == 0, said
        retrain = len(all_changes) - all_changes[::-1].index("create_run")
        points = [n for n in range(retrain, len(all_changes)) if all_changes[n - 1] != all_changes[n]]
        for change in points:
            changes, _ = kill_at(drivers, change, *ONE_TRIAL)
            assert changes == all_changes[: len(changes)]
            versions = drivers.workplace.client.search_model_versions(f"name = 'killed-logistic_regression-{change}'")
            assert len(versions) == 1
            (champion,) = [
                drivers.workplace.client.get_model_version_by_alias(f"killed-logistic_regression-{change}", "champion")
            ]
            assert champion.version == versions[0].version
        invariants.check(drivers.workplace)


@pytest.mark.parametrize("search", matrix.SEARCHES)
class TestSearches:
    def test_killed_ten_times_at_random_a_search_ends_as_if_undisturbed(self, search, drivers):
        seed = random.SystemRandom().randrange(2**32)
        print(f"random moments of seed {seed}")
        draw = random.Random(seed)
        words = (f"search={search}", *TWENTY_FOUR[search], WITHOUT_FINAL_STEP)
        disturbed, calm = (f"tracking.experiment={search.replace('/', '-')}-{name}" for name in ("disturbed", "calm"))
        code, said, _ = drivers.run(*words, disturbed, kill_after=draw.randint(6, 20), delay=draw.uniform(0, 0.1))
        for _ in range(KILLS - 1):
            assert code is None, said
            again = ("resume=latest", disturbed)
            code, said, _ = drivers.run(*again, kill_after=draw.randint(4, 16), delay=draw.uniform(0, 0.1))
        assert code is None, said
        code, said, _ = drivers.run(*again)
        assert code == 0, said
        code, said, _ = drivers.run(*words, calm)
        assert code == 0, said
        invariants.check(drivers.workplace)
        both = [below(drivers.workplace, words.partition("=")[2], "search")[0].data for words in (disturbed, calm)]
        assert [data.metrics["trials_complete"] for data in both] == [TRIALS, TRIALS]
        best = [{name: value for name, value in data.tags.items() if name.startswith("best_")} for data in both]
        assert best[0] == best[1]
        assert both[0].metrics["best_objective"] == both[1].metrics["best_objective"]
        assert both[0].tags["trialbook.best_trial"] == both[1].tags["trialbook.best_trial"]
