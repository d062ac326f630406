"""Python's garbage collector, on and off."""

import gc
import weakref

import pytest

from trialbook import garbage


class Thing:
    """Something that refers to itself, as nets do."""

    def __init__(self):
        self.me = self


def is_collectable(thing):
    return any(found is thing for found in gc.get_objects())


@pytest.fixture(autouse=True)
def nothing_frozen():
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("aside", [True, False])
def test_what_comes_while_nothing_is_collected_may_be_set_aside(aside):
    with garbage.uncollected(aside=aside):
        assert not gc.isenabled()
        thing = Thing()
        assert is_collectable(thing)

    assert gc.isenabled()
    assert is_collectable(thing) is not aside


def test_collecting_may_begin_again_before_the_end():
    thing = Thing()
    with garbage.uncollected():
        garbage.collect_again()
        assert gc.isenabled()
        assert not is_collectable(thing)
        later = Thing()
        garbage.collect_again()
        assert is_collectable(later)
    assert gc.isenabled()


def test_what_is_not_set_aside_is_old():
    with garbage.uncollected(aside=False):
        thing = Thing()
    assert any(found is thing for found in gc.get_objects(generation=2))


def test_what_was_set_aside_for_a_while_is_collected_again():
    thing = Thing()
    with garbage.libraries_set_aside():
        with garbage.uncollected():
            another = Thing()
        assert not is_collectable(thing)
    assert is_collectable(thing)
    assert is_collectable(another)


def test_what_an_earlier_search_has_left_is_collected_and_nothing_is_where_none_has(monkeypatch):
    monkeypatch.setattr(garbage, "_left", [])
    collected = []
    monkeypatch.setattr(gc, "collect", lambda collect=gc.collect: collected.append(collect()))
    garbage.collect_left()
    assert not collected
    thing = Thing()
    seen = weakref.ref(thing)
    garbage.leave(thing)
    del thing
    garbage.collect_left()
    assert seen() is None
    garbage.collect_left()
    assert len(collected) == 1


def test_what_somebody_else_has_set_aside_stays_so():
    thing = Thing()
    gc.freeze()
    with garbage.libraries_set_aside():
        pass
    assert not is_collectable(thing)


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
