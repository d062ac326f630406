"""Which processes a workplace's commands have left."""

import time

import psutil


def processes_of(workplace, running=""):
    """Every process that was started from this workplace, by its environment; those that have ended do not count.

    With `running`, only those with that in their command.
    """
    found = []
    for process in psutil.process_iter():
        try:
            here = process.status() != psutil.STATUS_ZOMBIE and str(workplace.folder) in str(process.environ())
            if here and running in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition, seconds=300):
    """Wait until a condition is true, and give back what it said."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.02)
    return said
