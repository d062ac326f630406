"""Where an interrupt is raised."""

import signal
import threading

import pytest

from trialbook import interrupts


@pytest.fixture(autouse=True)
def heed_interrupts(ctrl_c):
    with interrupts.heeded():
        yield


def interrupted():
    signal.raise_signal(signal.SIGINT)
    return "done"


def test_an_interrupt_is_raised_where_it_comes():
    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_call_that_must_not_be_disturbed_is_finished_first():
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupts.undisturbed(lambda: done.append(interrupted()))
    assert done == ["done"]


def test_so_is_the_call_around_it():
    done = []

    def outer():
        interrupts.undisturbed(interrupted)
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        interrupts.undisturbed(outer)
    assert done == ["outer"]


def test_a_call_that_fails_meanwhile_ends_in_the_interrupt_too():
    def fail():
        interrupted()
        raise ArithmeticError

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupts.undisturbed(fail)
    assert isinstance(caught.value.__context__, ArithmeticError)


def test_a_call_without_one_is_just_made():
    assert interrupts.undisturbed(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        interrupts.undisturbed(divmod, 7, 0)
    interrupts.check()


def test_a_call_in_another_thread_does_not_hold_up_the_interrupt_of_this():
    begun, ended = threading.Event(), threading.Event()

    def call():
        begun.set()
        ended.wait(10)

    thread = threading.Thread(target=interrupts.undisturbed, args=(call,))
    thread.start()
    begun.wait(10)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    ended.set()
    thread.join()


def test_a_caller_may_have_the_answer_before_the_interrupt():
    assert interrupts.holding(interrupted) == "done"
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_a_second_interrupt_does_not_wait():
    done = []

    def hang():
        interrupted()
        done.append("first")
        interrupted()
        done.append("second")

    with pytest.raises(KeyboardInterrupt):
        interrupts.undisturbed(hang)
    assert done == ["first"]
    assert interrupts.undisturbed(divmod, 7, 2) == (3, 1)


def test_another_thread_is_none_of_its_business():
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    checked = []
    thread = threading.Thread(target=lambda: checked.append(interrupts.check()))
    thread.start()
    thread.join()
    assert checked == [None]


def test_an_interrupt_that_was_swallowed_is_raised_again():
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_what_was_raised_before_is_forgotten_the_next_time():
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with interrupts.heeded():
        interrupts.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_elses_is_left_alone():
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    with interrupts.heeded():
        assert interrupted() == "done"
    assert heard == [1]
