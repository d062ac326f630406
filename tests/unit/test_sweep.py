import io

import pytest
from omegaconf import OmegaConf

from trialbook.sweep_job import Labelled, Permit
from trialbook.sweep_request import same_epoch


def test_a_label_stands_before_every_line_and_lines_are_written_whole():
    stream = io.StringIO()
    labelled = Labelled(stream, "#1")
    labelled.write("one\ntw")
    assert stream.getvalue() == "#1 one\n"
    labelled.write("o\n\nthr")
    assert stream.getvalue() == "#1 one\n#1 two\n#1\n"
    labelled.end()
    labelled.end()
    assert stream.getvalue() == "#1 one\n#1 two\n#1\n#1 thr\n"
    assert not labelled.isatty()


def test_a_permit_is_withdrawn_by_its_driver_only(tmp_path):
    permit = Permit.of(str(tmp_path / "sweep"))
    assert not permit.withdrawn, "jobs on a machine that does not see the folder may run"
    permit.issue()
    assert not permit.withdrawn
    permit.withdraw()
    assert permit.withdrawn
    assert permit.driver is None
    permit.issue()
    assert not permit.withdrawn


@pytest.mark.parametrize(
    ("epochs", "words", "added"),
    [
        (["last", "best"], [], ["objective.epoch=best"]),
        (["last", "best"], ["objective.epoch=last"], []),
        (["last", "last"], [], []),
        (["best", "best"], [], []),
    ],
)
def test_nets_are_judged_alike_in_all_searches_of_a_sweep(epochs, words, added):
    jobs = [OmegaConf.create({"objective": {"epoch": epoch}}) for epoch in epochs]
    assert same_epoch(jobs, words) == added
