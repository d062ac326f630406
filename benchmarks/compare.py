"""Trialbook beside what a user would write without it: the claims of docs/performance.md, each measured again.

Run it with `python -m benchmarks.compare`; it takes more than half an hour on two idle cores, and longer the first
time, when it installs the peers into environments of their own (see `benchmarks.harness.python_of`). `--rows 1,2`
measures these rows only and prints their table, which is not written into the page unless `--output` names it: the
page's table is of one run. Trialbook runs with its defaults, and with two workers where the peer has two cores.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import HEADINGS, ROOT, Compared, Comparison, Goal, Script
from benchmarks.rows import server, startup

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- the table of benchmarks.compare begins -->", "<!-- the table of benchmarks.compare ends -->"
CALL = "the call that searches and retrains the best"
TWO_WORKERS = {"processes": {"workers": 2}}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=numbers, help="the rows to measure, such as 1,2; all if not given")
    parser.add_argument("--repetitions", type=int, help="how often the two sides take turns; else, what suits the row")
    parser.add_argument("--pima", help="a file of the 768 rows of rows 1 and 2, without a header; made up if not given")
    parser.add_argument("--output", type=Path, help="the page to write the table into, between its two marks")
    parser.add_argument("--quick", action="store_true", help="little work, to see that everything runs")
    given = parser.parse_args()
    claims = [c for c in comparisons(given.pima, quick=given.quick) if given.rows is None or c.row in given.rows]
    started = time.monotonic()
    done = []
    for claim in claims:
        say(f"row {claim.row}: {claim.work}, beside {claim.rival}")
        done.append(claim.run(given.repetitions, say))
    said = table(done)
    say(f"\n{said}\n\nIt took {(time.monotonic() - started) / 60:.0f} minutes.")
    output = given.output or (PAGE if given.rows is None and not given.quick else None)
    if output is not None:
        write(output, said)


def numbers(words: str) -> set[int]:
    """The numbers of some rows."""
    return {int(word) for word in words.split(",")}


def say(line: str) -> None:
    """A plain line at once, even into a pipe."""
    print(line, flush=True)


def comparisons(pima: str | None, *, quick: bool) -> list[Comparison]:
    """All claims, row by row.

    Args:
        pima: The file of the rows of rows 1 and 2.
        quick: Whether to do little work.
    """
    return [
        *grids(pima, epochs=1 if quick else 10),
        *hyperbands(max_epochs=2 if quick else 10, trials=2 if quick else 30),
        boosting(n_trees=2 if quick else 50),
        *instant(trials=50 if quick else 1000),
        *startup.comparisons(),
        sweep(server.Sweep(2, 3) if quick else server.Sweep(4, 25)),
    ]


def grids(pima: str | None, epochs: int) -> Iterable[Comparison]:
    """Rows 1 and 2."""
    shared = {"path": pima, "epochs": epochs}
    sides: list[tuple[int, str, str, str, float]] = [
        (1, "tracked", "`GridSearchCV`, scikeras, `mlflow.sklearn.autolog(max_tuning_runs=None)`", "tuned", 4),
        (2, "not tracked", "`GridSearchCV`, scikeras", "untracked", 3),
    ]
    for row, how, rival, ours, times in sides:
        yield Comparison(
            row,
            work=f"grid over `hidden_units` x `activation`, 3 folds, {epochs} epochs, 768 rows, {how}",
            timed=CALL,
            rival=rival,
            peer=script("grid", "peer", "requirements.txt", **shared, tracked=row == 1),
            ours=script("grid", ours, **shared),
            goal=Goal(faster=True, times=times),
            trials=6,
            tolerance=0.03 if epochs > 1 else 0.3,
        )


def hyperbands(max_epochs: int, trials: int) -> Iterable[Comparison]:
    """Row 3."""
    by_hand = "`keras_tuner.Hyperband`, a nested MLflow run and `mlflow.tensorflow.log_model` for each trial"
    sides: list[tuple[bool, str, Any, float, int]] = [
        (True, by_hand, "serial", 4, 1),
        (False, "`keras_tuner.Hyperband`, not tracked", TWO_WORKERS, 1.7, 3),
    ]
    for data, rows in (("digits", "digits"), ("images", "10,000 images of 28x28")):
        for tracked, rival, executor, times, repetitions in sides:
            workers = "" if tracked else ", 2 workers"
            shared = {"data": data, "max_epochs": max_epochs}
            yield Comparison(
                3,
                work=f"Hyperband, at most {max_epochs} epochs, {rows}, tracked{workers}",
                timed=CALL,
                rival=rival,
                peer=script("hyperband", "peer", "requirements.txt", **shared, tracked=tracked),
                ours=script("hyperband", "tuned", **shared, executor=executor),
                goal=Goal(faster=True, times=times),
                trials=trials,
                tolerance=0.05,
                repetitions=repetitions,
            )


def boosting(n_trees: int) -> Comparison:
    """Row 4."""
    return Comparison(
        4,
        work=f"random search, 50 candidates, {n_trees} boosted trees, 5 folds, 10,000 rows, tracked, 2 workers",
        timed=CALL,
        rival="`RandomizedSearchCV(n_jobs=2)`, not tracked",
        peer=script("boosting", "peer", "requirements.txt", n_trees=n_trees),
        ours=script("boosting", "tuned", n_trees=n_trees),
        goal=Goal(faster=False, times=1.05),
        trials=50,
        tolerance=1e-9,
    )


def instant(trials: int) -> Iterable[Comparison]:
    """Row 5. A trial takes some of the peers seconds, and one of them longer with every trial; these run a tenth."""
    peers = [
        ("optuna_callback", "Optuna, `MLflowCallback`", "requirements.txt", trials, 3),
        ("optuna_storage", "Optuna, `MlflowStorage`", "requirements.txt", trials // 10, 1),
        ("ray_tune", "Ray Tune, `MLflowLoggerCallback`", "ray.txt", trials // 10, 1),
    ]
    for side, rival, requirements, count, repetitions in peers:
        yield Comparison(
            5,
            work=f"{count:,} trials of an instant objective, tracked",
            timed="the search",
            rival=rival,
            peer=script("instant", side, requirements, trials=count),
            ours=script("instant", "ours", trials=count),
            goal=Goal(faster=True, times=1),
            trials=count,
            tolerance=0.3 if count >= 100 else 1,  # the best of a few random draws is anything
            repetitions=repetitions,
            per_trial=True,
        )


def sweep(ours: server.Sweep) -> Comparison:
    """Row 7."""
    return Comparison(
        7,
        work=f"sweep of {ours.searches} searches of {ours.trials} trials, `mlflow server`",
        timed=server.TIMED,
        rival="the same requests, bare",
        peer=server.Replay(ours),
        ours=ours,
        goal=Goal(faster=False, times=1.3),
        trials=ours.searches * ours.trials,
    )


def script(row: str, side: str, peers: str | None = None, **words: Any) -> Script:
    """A function of a row's module."""
    return Script(f"benchmarks.rows.{row}", side, words, peers)


def table(done: Sequence[Compared]) -> str:
    """The date, the machine and the versions, and below them the table."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(compared.cells() for compared in done)]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    names = ("mlflow", "scikit-learn", "keras", "keras-tuner", "tensorflow")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"Measured on {time.strftime('%Y-%m-%d')} on {machine()}, Python {platform.python_version()}, {versions}. "
        f"Times are medians, with the least and the most.\n\n{rows}"
    )


def machine() -> str:
    """What this runs on."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists() and (named := re.search(r"model name\s*: (.*)", info.read_text())):
        model = named[1]
    return f"{psutil.cpu_count()} cores ({model}), {psutil.virtual_memory().total / 2**30:.0f} GB, {platform.system()}"


def write(page: Path, said: str) -> None:
    """Put the table between the page's two marks."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has not the lines {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n\n{said}\n\n{end}{after}")


if __name__ == "__main__":
    main()
