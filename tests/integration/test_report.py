"""The leaderboard, the notes and the reports, made from plain values."""

import html
import json
import re
import time
from dataclasses import replace

import pytest

from trialbook import report
from trialbook.report import HowTo, Registered, Span, Summary, against, figures, leaderboard, ranks
from trialbook.report.summary import merged
from trialbook.space import Space
from trialbook.testing import completed, failed
from trialbook.trial import Record, State, Trial


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
SPACE = Space.parse({"rate": {"low": 1e-4, "high": 1, "log": True}, "kind": ["a", "b"], "alpha": {"low": 0, "high": 9}})
HOW_TO = HowTo("trialbook search=x seed=3", "trialbook resume=abc", "postgresql://***@db/mlflow", 3)
REGISTERED = Registered("Registered it version 1 as champion.", "models:/it@champion")


def searched(title="sklearn/random svm on it", n=24, *, offset=0.0):
    """A search in which `rate` explains nearly all, two trials of `kind` b fail, and two workers take turns."""
    records, spans = [], {}
    for number in range(n):
        step = (7 * number % n) / n
        params = {"rate": 10 ** (4 * step - 4), "kind": "ab"[number % 2], "alpha": number * 5 % 9}
        result = completed(0.5 + offset + step / 3 + params["alpha"] / 1000)
        if number in (3, 5):
            result = replace(failed(), reason=f"ValueError: <b>no</b> | {'way' if number == 3 else 'how'}")
        records.append(Record(Trial(number, params), result, f"run{number}"))
        spans[number] = Span(1000.0 + number, 1001.5 + number, f"host:{number % 2}")
    return Summary(title, "accuracy", True, records, "so it was", SPACE, HOW_TO, REGISTERED, spans)


def hyperband():
    """Three nets on two epochs, of which the best goes on to six."""
    start = [
        Record(Trial(n, {"units": 8 * n}, epochs=2, details={"bracket": 1, "round": 0}), completed(0.5 + n / 10))
        for n in range(3)
    ]
    goes_on = Trial(3, {"units": 16}, epochs=6, initial_epoch=2, continues=2, details={"bracket": 1, "round": 1})
    return Summary("hyperband", "accuracy", True, [*start, Record(goes_on, completed(0.9))], "so it was")


class TestLeaderboard:
    def test_ranks_put_the_last_rung_first_and_failures_last(self):
        assert ranks(HALVING, maximize=True) == [4, 3, 5, 2, 1, 5]

    def test_that_of_a_halving_names_iteration_resources_and_standing(self):
        table = leaderboard(HALVING, maximize=True)
        assert table["trial"].tolist() == [4, 3, 1, 0, 2, 5]
        assert table["iter"].tolist() == [1, 1, 0, 0, 0, 1]
        assert table["n_resources"].tolist() == [30, 30, 10, 10, 10, 30]
        assert table["standing"].tolist()[:4] == ["final", "final", "promoted", "promoted"]

    def test_that_of_another_search_has_no_such_columns(self):
        table = leaderboard([Record(Trial(0, {"x": 1}), completed(1.0))], maximize=True)
        assert not {"iter", "n_resources", "standing"} & set(table.columns)

    def test_its_columns_are_those_of_a_grid_search_of_scikit_learn(self):
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV

        X, y = load_iris(return_X_y=True)
        theirs = GridSearchCV(LogisticRegression(max_iter=500), {"C": [1, 2]}, cv=3).fit(X, y).cv_results_
        times = {"fit_seconds": 1.0, "fit_seconds_std": 0.1, "score_seconds": 0.1, "score_seconds_std": 0.01}
        scores = replace(completed(0.9), fold_scores=(0.9, 0.9, 0.9), objective_std=0.0, **times)
        ours = leaderboard([Record(Trial(0, {"C": 1}), scores)], maximize=True)
        assert set(theirs) <= set(ours.columns)


class TestNote:
    def test_it_says_what_was_searched_and_what_came_of_it(self):
        said = report.note(searched())
        assert "24 trials: 22 complete, 2 failed. It ended because so it was." in said
        assert "- `rate`: 0.0001 … 1 logarithmic" in said
        assert "- `kind`: a, b" in said
        best = max((r for r in searched().records if r.result.state is State.COMPLETE), key=lambda r: r.objective)
        rows = [line for line in said.splitlines() if re.match(r"\| \d", line)]
        assert len(rows) == 5
        assert rows[0].startswith(f"| 1 | {best.trial.number:03d} | {best.objective:.4f} |")

    def test_each_cause_of_failure_is_a_line(self):
        lines = [line for line in report.note(searched()).splitlines() if line.startswith("- trial")]
        assert lines == [
            "- trial 005 failed: ValueError: <b>no</b> \\| how",
            "- trial 003 failed: ValueError: <b>no</b> \\| way",
        ]

    def test_it_has_the_ways_back(self):
        said = report.note(searched())
        where = "MLFLOW_TRACKING_URI='postgresql://***@db/mlflow'"
        assert f"Run it again (seed 3):\n\n```bash\n{where} trialbook search=x seed=3\n```" in said
        assert f"```bash\n{where} trialbook resume=abc\n```" in said
        assert 'mlflow.pyfunc.load_model("models:/it@champion")' in said
        assert f"{where} mlflow models serve -m models:/it@champion" in said

    def test_a_search_in_which_all_failed_has_one_too(self):
        lost = replace(searched(), records=[r for r in searched().records if r.trial.number in (3, 5)], registered=None)
        said = report.note(lost)
        assert "2 trials: 2 failed" in said
        assert "load_model" not in said

    def test_that_of_a_sweep_has_a_row_for_each_search_and_the_jobs_that_failed(self):
        searches = [searched("one"), searched("two", offset=0.1)]
        said = report.sweep_note("a sweep", searches, failed=["job 2, model=x: gone"], how_to=HOW_TO)
        assert "| one | accuracy | " in said
        assert "| two | accuracy | " in said
        assert "- job 2, model=x: gone" in said
        best = merged("both", searches).complete[0]
        assert f"| 1 | {best.trial.details['own_number']:03d} | {best.objective:.4f} | two | " in said
        assert "trialbook resume=abc" in said


def drawn(page):
    """The data of every figure on a page."""
    decoder = json.JSONDecoder()
    starts = [found.end() for found in re.finditer(r"Plotly\.newPlot\(\s*\"[\w-]+\",\s*", page)]
    return [decoder.raw_decode(page, start)[0] for start in starts]


def headings(page):
    return [html.unescape(words) for words in re.findall(r"<h2>(.*?)</h2>", page)]


@pytest.fixture(scope="class", name="page")
def make_page():
    return report.html_report(searched())


class TestPage:
    def test_it_has_everything_and_needs_nothing_from_elsewhere(self, page):
        wanted = ["Leaderboard", "History", "Parallel coordinates", "Slices", "Importances", "Timeline"]
        assert headings(page) == wanted
        assert len(drawn(page)) == len(wanted) - 1
        assert page.count("plotly.js v") == 1
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page)
        assert '<meta name="viewport"' in page
        assert "prefers-color-scheme: dark" in page

    def test_what_trials_say_is_text_not_markup(self, page):
        assert "<b>no</b>" not in page
        assert "&lt;b&gt;no&lt;/b&gt;" in page

    def test_failed_trials_appear_as_failed(self, page):
        (history, *_) = drawn(page)
        (lost,) = [trace for trace in history if trace["name"] == "failed"]
        assert list(lost["x"]) == [3, 5]
        assert page.count("<tr class=failed>") == 2

    def test_every_worker_has_a_row(self, page):
        rows = {row for trace in drawn(page)[-1] for row in trace["y"]}
        assert rows == {"host:0", "host:1"}

    def test_a_thousand_trials_take_seconds(self):
        started = time.monotonic()
        page = report.html_report(searched(n=1000))
        assert time.monotonic() - started < 15
        assert len(page) < 8_000_000


class TestFigures:
    def test_what_explains_the_objective_is_named(self):
        # Neither first nor last by name, nor in the order of the space.
        (bars,) = against.importances(searched()).figure.data
        shares = dict(zip(bars.y, bars.x, strict=True))
        assert shares["rate"] > 0.9
        assert sum(shares.values()) == pytest.approx(1)

    @pytest.mark.parametrize(
        ("records", "said"),
        [
            (searched(n=8).records, "6 trials are too few to tell"),
            ([r for r in searched().records if r.trial.params["kind"] == "c"], "nothing to weigh"),
            ([Record(r.trial, completed(0.5)) for r in searched().records], "All trials have the same objective"),
        ],
    )
    def test_importances_are_left_out_where_they_cannot_be_told(self, records, said):
        drawing = against.importances(replace(searched(), records=records))
        assert drawing.figure is None
        assert said in drawing.said

    def test_the_history_tells_rungs_apart(self):
        halving = Summary("halving", "accuracy", True, HALVING, "so it was")
        names = [trace.name for trace in figures.history(halving).figure.data]
        assert names == ["rung 0: 10", "rung 1: 30", "best so far", "failed"]

    def test_candidates_of_a_halving_climb(self):
        (trace,) = figures.rungs(Summary("halving", "accuracy", True, HALVING, "so it was")).figure.data
        assert list(trace.x) == [10, 30, None, 10, 30, None]
        assert list(trace.y) == [0.9, 0.7, None, 1.0, 0.8, None]

    def test_nets_of_hyperband_climb_too(self):
        (trace,) = figures.rungs(hyperband()).figure.data
        assert trace.name == "bracket 1"
        assert list(trace.x) == [2, None, 2, None, 2, 6, None]

    def test_other_searches_have_no_rungs(self):
        assert figures.rungs(searched()) is None

    def test_a_candidate_that_went_on_is_compared_by_its_last_score(self):
        lines = against.parallel_coordinates(hyperband()).figure.data
        assert len([line for line in lines if line.mode == "lines"]) == 3

    def test_trials_whose_workers_are_unknown_share_as_few_rows_as_they_can(self):
        spans = {number: Span(span.start, span.end) for number, span in searched().spans.items()}
        drawing = figures.timeline(replace(searched(), spans=spans))
        assert {row for trace in drawing.figure.data for row in trace.y} == {"1", "2"}

    def test_searches_race_against_trials_and_against_time(self):
        searches = [searched("one"), searched("two", offset=0.1)]
        for unit, last in (("trials", 24), ("seconds", 24.5)):
            lines = figures.race(searches, against=unit).figure.data
            assert [line.name for line in lines] == ["one", "two"]
            assert lines[0].x[-1] == last
            best = [value for value in lines[0].y if value is not None]
            assert best == sorted(best)

    def test_curves_are_told_apart_by_trial(self):
        curves = {
            4: {"loss": [(1, 0.5), (2, 0.4)], "val_loss": [(1, 0.6), (2, 0.5)]},
            7: {"val_loss": [(1, 1), (2, 2)]},
        }
        lines = figures.learning_curves(replace(searched(), curves=curves)).figure.data
        assert [line.name for line in lines] == ["trial 004", "trial 004", "trial 007"]
        assert [line.line.dash for line in lines] == ["dot", None, None]


class TestSweep:
    def test_its_page_has_the_races_and_what_the_trials_tell_together(self):
        searches = [searched("one"), searched("two", offset=0.1)]
        page = report.sweep_report("a sweep", searches, registered=[REGISTERED])
        assert headings(page)[:4] == [
            "Searches",
            "Best so far against trials",
            "Best so far against wall time",
            "Leaderboard",
        ]
        assert REGISTERED.said in page

    def test_searches_merge_under_new_numbers(self):
        whole = merged("both", [hyperband(), hyperband()])
        assert [r.trial.number for r in whole.records] == list(range(8))
        assert whole.records[7].trial.continues == 6
        assert whole.names == ["search", "units"]

    def test_a_halving_among_other_searches_keeps_its_standings(self):
        halving = Summary("halving", "accuracy", True, HALVING, "so it was")
        searches = [searched("one"), halving, Summary("cut", "accuracy", True, HALVING[:3], "so it was")]
        page = report.sweep_report("a sweep", searches)
        assert "<th>resources</th><th>standing</th>" in page
        whole = merged("all", searches)
        own = {r.trial.number: halving.standing[r.trial.details["own_number"]] for r in whole.records[24:30]}
        assert {number: whole.standing[number] for number in range(24, 30)} == own
        assert [whole.standing[number] for number in range(30, 33)] == ["undecided"] * 3

    def test_trials_keep_their_names_and_the_best_their_curves(self):
        curve = {"val_loss": [(1, 0.5), (2, 0.4)]}
        searches = [replace(searched(title), curves=dict.fromkeys(range(17, 22), curve)) for title in ("one", "two")]
        lines = figures.learning_curves(merged("both", searches)).figure.data
        assert len(lines) == 5
        assert {line.name for line in lines} >= {"trial 017 of one", "trial 017 of two"}

    def test_a_sweep_of_nothing_has_a_page_too(self):
        assert "0 searches" in report.sweep_report("a sweep", [])
