"""An interrupt is heard in a wait, also if the signal has reached another thread than the one that waits."""

import signal
import threading
import time
from concurrent.futures import Future
from multiprocessing.pool import ThreadPool

import pytest

from trialbook import waiting


@pytest.fixture(name="never")
def event_that_is_never_set(monkeypatch, ctrl_c):
    """Set in the end, for the threads that wait for it; the waits look up often."""
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    event = threading.Event()
    yield event
    event.set()


def interrupted_elsewhere(wait, event):
    """Wait, and meanwhile have SIGINT reach another thread."""

    def be_reached():
        time.sleep(0.05)  # until the main thread waits: there is no event for that
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    threading.Thread(target=be_reached).start()
    wait(event)


def wait_for_a_pool(event):
    with ThreadPool(1) as pool:
        list(waiting.each(pool.imap_unordered(lambda _: event.wait(), [1])))


@pytest.mark.parametrize(
    "wait",
    [
        lambda event: waiting.until_set(event),
        lambda event: waiting.first_done([Future(), Future()]),
        lambda event: waiting.result_of(Future()),
        wait_for_a_pool,
    ],
    ids=["event", "futures", "result", "pool"],
)
def test_a_wait_ends_with_an_interrupt_that_another_thread_got(never, wait):
    with pytest.raises(KeyboardInterrupt):
        interrupted_elsewhere(wait, never)


def test_what_is_there_is_given(never):
    done, open_ = Future(), Future()
    done.set_result(3)
    assert waiting.first_done([open_, done]) == {done}
    assert waiting.result_of(done) == 3
    with ThreadPool(2) as pool:
        assert sorted(waiting.each(pool.imap_unordered(lambda n: n * n, range(5)))) == [0, 1, 4, 9, 16]


def test_what_goes_wrong_is_raised(never):
    failed = Future()
    failed.set_exception(ArithmeticError("no"))
    with pytest.raises(ArithmeticError):
        waiting.result_of(failed)
    with ThreadPool(1) as pool, pytest.raises(ZeroDivisionError):
        list(waiting.each(pool.imap_unordered(lambda n: 1 / n, [1, 0])))
