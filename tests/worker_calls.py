"""What the workers of tests/unit/test_processes.py run; a module of its own, so that they find it."""

import os
import subprocess
import time
from pathlib import Path

from trialbook.worker import StandIn


def work(command, *args):
    """What the workers of these tests run: a call says what to do."""
    return COMMANDS[command](*args)


def spawn_then_wait(file):
    """Start a process, write down which, and stay."""
    child = subprocess.Popen(["sleep", "600"])
    write(file, child.pid)
    time.sleep(600)


def wait_for_file(file):
    while not Path(file).exists():
        time.sleep(0.01)
    return os.getpid()


def write(file, text):
    Path(f"{file}.part").write_text(str(text))
    Path(f"{file}.part").rename(file)


def note_and_wait(file, until):
    write(file, os.getpid())
    return wait_for_file(until)


def fork_then_die(file):
    """Leave a process behind that holds on to all that this one had open."""
    if os.fork() == 0:
        write(file, os.getpid())
        time.sleep(600)
    wait_for_file(file)
    os._exit(3)


class Echo(StandIn):
    """What a worker of these tests gets in place of what stays in the driver."""


def talk(echo):
    """Ask, tell and ask again; returns all answers."""
    answers = [echo.driver.ask("double", 2)]
    echo.driver.tell("note", "told")
    for what in ("refuse", "break"):
        try:
            echo.driver.ask(what)
        except Exception as error:
            answers.append(error)
    return [*answers, echo.driver.ask("notes")]


def tell_then_exit(echo):
    echo.driver.tell("note", "last words")
    echo.driver.ask("notes")
    os._exit(4)


COMMANDS = {
    "talk": talk,
    "tell_then_exit": tell_then_exit,
    "exit_with": lambda code, _: os._exit(code),
    "ask": lambda what, echo: echo.driver.ask(what),
    "pid": os.getpid,
    "exit": os._exit,
    "environment": os.environ.get,
    "note_and_wait": note_and_wait,
    "spawn_then_wait": spawn_then_wait,
    "fork_then_die": fork_then_die,
    "wait": lambda: time.sleep(600),
    "raise": lambda: [][0],
    "folder": lambda: os.environ["TMPDIR"],
    "group": os.getpgid,
}


class Counted:
    """Counts how often it is unpacked."""

    def __init__(self, file):
        self.file = file

    def __setstate__(self, state):
        self.__dict__ = state
        with Path(self.file).open("a") as file:
            file.write("x")

    def __call__(self):
        return os.getpid()


class Unpackable:
    def __reduce__(self):
        return __import__, ("no_such_module",)

    def __call__(self):
        """Never called."""
