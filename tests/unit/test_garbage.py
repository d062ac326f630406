"""Python's garbage collector, on and off."""

import gc

import pytest

from trialbook import garbage


class Thing:
    pass


def is_in(generation, thing):
    return any(found is thing for found in gc.get_objects(generation=generation))


@pytest.fixture
def nothing_frozen():
    before = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if before:
        gc.freeze()


def test_what_comes_while_nothing_is_collected_is_old_afterwards(nothing_frozen):
    with garbage.uncollected():
        assert not gc.isenabled()
        thing = Thing()
        assert is_in(0, thing)

    assert gc.isenabled()
    assert is_in(2, thing)


def test_what_had_been_set_aside_stays_so(nothing_frozen):
    with garbage.libraries_set_aside():
        with garbage.uncollected():
            thing = Thing()

        assert gc.get_freeze_count()
        assert not is_in(2, thing)

    assert not gc.get_freeze_count()
    assert is_in(2, thing)


def test_a_collector_that_somebody_has_switched_off_stays_off(nothing_frozen):
    gc.disable()
    try:
        with garbage.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_on_again_after_an_error(nothing_frozen):
    with pytest.raises(ImportError), garbage.uncollected():
        raise ImportError
    assert gc.isenabled()
