"""Python's garbage collector, on and off."""

import gc

import pytest

from trialbook import garbage


class Thing:
    pass


def is_collectable(thing):
    return any(found is thing for found in gc.get_objects())


@pytest.fixture(autouse=True)
def nothing_frozen():
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_comes_while_nothing_is_collected_is_set_aside():
    with garbage.uncollected():
        assert not gc.isenabled()
        thing = Thing()
        assert is_collectable(thing)

    assert gc.isenabled()
    assert not is_collectable(thing)


def test_what_was_set_aside_for_a_while_is_collected_again():
    thing = Thing()
    with garbage.libraries_set_aside(), garbage.uncollected():
        another = Thing()
    assert is_collectable(thing)
    assert is_collectable(another)


def test_a_collector_that_somebody_has_switched_off_stays_off():
    gc.disable()
    try:
        with garbage.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_collector_is_on_again_after_an_error():
    with pytest.raises(ImportError), garbage.uncollected():
        raise ImportError
    assert gc.isenabled()
