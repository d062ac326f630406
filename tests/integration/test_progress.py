"""What is seen of a search while it runs: on a terminal, in a pipe, in a notebook."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import trialbook
from trialbook.progress import Tally, Terminal
from trialbook.testing import completed, failed
from trialbook.trial import Record, Trial


def run_three(terminal):
    """Three trials, the second of which fails; a fourth that runs."""
    with terminal.search(4, maximize=True) as progress:
        for number, result in enumerate([completed(0.5), failed(), completed(0.75)]):
            trial = Trial(number, {"units": 8, "rate": 1 / 3})
            progress.started(trial)
            progress.finished(Record(trial, result))
        progress.started(Trial(3, {"units": 8, "rate": 0.1}))


def test_a_terminal_shows_one_line_with_counts_best_rate_and_time_left():
    written = io.StringIO()
    run_three(Terminal(Console(file=written, force_terminal=True, width=120)))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())
    assert shown.count("\n") <= 1
    assert re.search(r"3/4 trials .* 1 failed · 1 running · best 0\.7500 \(trial 002\) · \S+/min · 0:00 left", shown)
    assert "trial 001 failed" not in shown


def test_a_pipe_gets_one_line_for_each_trial_that_has_ended(capsys):
    run_three(Terminal())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("[1/4] trial 000 complete objective=0.5000 units=8 rate=0.3333 · ")
    assert "trial 001 failed (" in lines[1]
    assert lines[2].endswith("best 0.7500 (trial 002)")


def test_the_time_left_is_that_of_the_trials_so_far():
    tally = Tally(10, maximize=True, _clock=0.0)
    assert "left" not in tally.state
    tally.done = 5
    assert re.search(r"\d+:\d\d left$", tally.state)


def test_the_table_has_no_empty_columns_and_names_each_cause_once(capsys):
    records = [Record(Trial(n, {"C": 1 / 3}), completed(0.5 + n / 10)) for n in range(2)]
    records += [Record(Trial(n, {"C": 0.1}), failed()) for n in (2, 3)]
    Terminal().leaderboard(records, "accuracy", maximize=True)
    out = capsys.readouterr().out
    heading, *rest = [line.split() for line in out.splitlines() if line.strip()][1:]
    assert heading == ["rank", "trial", "accuracy", "±", "C", "seconds"]
    assert rest[1][:5] == ["1", "001", "0.6000", "0.0000", "0.3333"]
    assert out.splitlines()[-1].startswith("2 failed: ")


NOTEBOOK = r"""
from sklearn.datasets import load_breast_cancer
from sklearn.svm import SVC
import trialbook

class Chatty(SVC):
    def fit(self, X, y):
        print(*["this piles up"] * 50, sep="\n")
        return super().fit(X, y)

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
trialbook.tune(Chatty(), {"C": [0.1, 1, 10, 100]}, X, y, search="sklearn/grid", tracking={"models": "none"})
"""


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that start a kernel
def test_a_notebook_shows_one_line_however_many_trials(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(trialbook.__file__).parents[1]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0].outputs
    shown = [o.data.get("text/plain", "") for o in outputs if o.output_type == "display_data"]
    (line,) = [words for words in shown if "running" in words]
    assert re.match(r"4/4 trials · 0 failed · 0 running · best 0\.\d{4} \(trial 00\d\) · ", line)
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert "trial 00" not in printed
    assert printed.count("this piles up") == 50  # of the last fit, which is no trial
    (result,) = [o for o in outputs if o.output_type == "execute_result"]
    assert result.data["text/plain"].startswith("Tuned: best accuracy")
