"""What a finished search or sweep shows: the leaderboard, the note on its run, and the report.

All of it is made from plain values: a `Summary` for each search.
"""

from trialbook.report.figures import load_libraries
from trialbook.report.notes import note, sweep_note
from trialbook.report.observed import observed
from trialbook.report.page import html_report, sweep_report
from trialbook.report.summary import HowTo, Registered, Span, Summary
from trialbook.report.tables import leaderboard, ranks

__all__ = [
    "HowTo",
    "Registered",
    "Span",
    "Summary",
    "html_report",
    "leaderboard",
    "load_libraries",
    "note",
    "observed",
    "ranks",
    "sweep_note",
    "sweep_report",
]
