"""What a search may be gone on with, what would make it another search, and by whom."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import invariants
import psutil
import pytest
from drivers import Drivers

pytestmark = pytest.mark.slow

# Six trials, the best of which is not among the first two.
SIX = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/grid", "model.space.C.num=3")


@pytest.fixture(scope="class", name="drivers")
def start_drivers(make_workplace_in):
    with Drivers(make_workplace_in("going-on")) as drivers:
        yield drivers


class TestGoingOn:
    """Each test has an experiment of its own in one store."""

    @staticmethod
    def search_in(drivers, experiment):
        client = drivers.workplace.client
        found = client.get_experiment_by_name(experiment)
        (run,) = client.search_runs([found.experiment_id], "tags.`trialbook.kind` = 'search'")
        return run

    def test_a_finished_search_goes_on_with_a_larger_budget(self, drivers):
        code, said, _ = drivers.run(*SIX, "tracking.experiment=budget", "budget.max_trials=2")
        assert code == 0, said
        first = self.search_in(drivers, "budget")
        resume = f"resume={first.info.run_id}"
        code, said, _ = drivers.run(resume)
        assert code == 0, said
        assert "Nothing more to do: max_trials=2 reached." in said
        assert "Registered breast_cancer version 1 as champion" in said
        # Another kind of budget that is spent already: the time of the two trials counts.
        code, said, _ = drivers.run(resume, "budget.max_trials=null", "budget.max_time=0.01")
        assert code == 0, said
        assert "Nothing more to do: max_time=0.01 s reached." in said
        # The words of the search may be repeated.
        code, said, _ = drivers.run(resume, *SIX, "budget.max_time=1000")
        assert code == 0, said
        assert "[3/6]" in said
        assert "[6/6]" in said
        assert "[2/6]" not in said
        assert "Registered breast_cancer version 2" in said
        last = self.search_in(drivers, "budget")
        assert last.data.metrics["trials_complete"] == 6
        assert last.data.tags["best_C"] != first.data.tags["best_C"]
        assert "max_time: 1000" in drivers.workplace.text(last, "config.yaml")
        code, said, _ = drivers.run(resume)
        assert code == 0, said
        assert "Nothing more to do: the search space is exhausted." in said
        invariants.check(drivers.workplace)

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("seed=5", "seed=5 would make it another search: seed is 1 on record"),
            ("search=sklearn/random", "search is sklearn/grid on record"),
            ("data=digits", "data is breast_cancer on record"),
            ("objective.metric=roc_auc", "objective.metric is null on record"),
            ("+model.space.C.values=[1.0]", "model.space.C.values is not there on record"),
        ],
    )
    def test_what_would_make_it_another_search_is_refused_with_the_difference(self, drivers, override, said):
        if drivers.workplace.client.get_experiment_by_name("same") is None:
            assert drivers.run(*SIX, "tracking.experiment=same", kill_after=20)[0] is None
        code, refused, _ = drivers.run(
            "resume=latest", "tracking.experiment=same", "model=logistic_regression", override
        )
        assert code == 2, refused
        assert said in refused
        assert refused.count("\n") == 1

    @pytest.mark.exhaustive
    def test_a_search_is_refused_while_its_driver_lives_and_taken_over_when_it_is_dead(self, drivers):
        names = ("tracking.experiment=claimed", "promote.enabled=false")
        assert drivers.run(*SIX, *names, kill_after=20)[0] is None
        run_id = self.search_in(drivers, "claimed").info.run_id
        here, now = socket.gethostname(), time.time()
        started = psutil.Process().create_time()
        claims = [
            ((here, os.getpid(), started, 0), f"is being run by process {os.getpid()} on {here}"),
            (("elsewhere", 77, now, now), "is being run by process 77 on elsewhere"),
            # The number of a process that is gone, used again.
            ((here, os.getpid(), started - 100, now), None),
            (("elsewhere", 77, now, now - 600), None),
        ]
        for fields, refused in claims:
            claim = dict(zip(("host", "pid", "started", "seen"), fields, strict=True))
            drivers.workplace.client.set_tag(run_id, "trialbook.driver", json.dumps(claim))
            code, said, _ = drivers.run(f"resume={run_id}", "budget.max_trials=3")
            assert code == (2 if refused else 0), said
            assert refused is None or refused in said
            assert ("trialbook.driver" in self.search_in(drivers, "claimed").data.tags) is (refused is not None)

    @pytest.mark.exhaustive
    def test_a_search_killed_before_it_had_said_what_it_is_about_is_closed_and_passed_over(self, drivers):
        names = ("tracking.experiment=early", "promote.enabled=false")
        assert drivers.run(*SIX, *names, kill_after=20)[0] is None
        older = self.search_in(drivers, "early").info.run_id
        assert drivers.run(*SIX, *names, kill_after=1)[0] is None
        client = drivers.workplace.client
        experiment = client.get_experiment_by_name("early").experiment_id
        searches = client.search_runs([experiment], "tags.`trialbook.kind` = 'search'")
        (early,) = {run.info.run_id for run in searches} - {older}
        code, said, _ = drivers.run(f"resume={early}")
        assert code == 2
        assert "has nothing to go on with" in said
        assert client.get_run(early).info.status == "KILLED"
        code, said, _ = drivers.run("resume=latest", names[0])
        assert code == 0, said
        assert client.get_run(older).info.status == "FINISHED"


@pytest.mark.exhaustive
def test_of_two_drivers_that_resume_at_once_one_is_refused(workplace):
    with Drivers(workplace) as drivers:
        assert drivers.run(*SIX, "promote.enabled=false", kill_after=20)[0] is None
    with workplace.started("resume=latest") as one, workplace.started("resume=latest") as other:
        ended = [(process.communicate(timeout=300)[1], process.returncode) for process in (one, other)]
    assert sorted(code for _, code in ended) == [0, 2]
    (refused,) = [err for err, code in ended if code == 2]
    running = {str(process.pid) for process in (one, other)}
    assert "is being run by process" in refused
    assert any(f"process {pid} on {socket.gethostname()}" in refused for pid in running)
    invariants.check(workplace)


@pytest.mark.exhaustive
def test_a_suspended_driver_whose_search_was_taken_over_leaves_it_alone(workplace):
    """What a laptop is that was closed for the night."""
    command = [sys.executable, "-c", SHORT_NIGHT, *SIX[:3], "validation=repeated", "promote.enabled=false"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=workplace.folder, env=workplace.environment(), **pipes) as process:
        workplace.read_until(process, "[1/")
        run_id = workplace.search_run().info.run_id
        taken = json.dumps({"host": "elsewhere", "pid": 77, "started": 0.0, "seen": time.time()})

        def take_over(client=workplace.client):
            # Until it is seen: the driver may have been about to renew its claim.
            while process.poll() is None:
                client.set_tag(run_id, "trialbook.driver", taken)

        with ThreadPoolExecutor(1) as other:
            other.submit(take_over)
            _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"search {run_id} has been taken over by process 77 on elsewhere" in err
    assert workplace.search_run().info.status == "RUNNING"
    assert workplace.search_run().data.tags["trialbook.driver"] == taken


# A driver that renews its claim every moment.
SHORT_NIGHT = """
import sys
from trialbook import claim
from trialbook.__main__ import main
claim._RENEWED_EVERY = 0.2
sys.exit(main(sys.argv[1:]))
"""
