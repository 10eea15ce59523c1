import gc
import sys
import weakref

import pytest

from mobile_vla.core import NS_PER_S
from mobile_vla.runtime import interpreter
from mobile_vla.runtime.interpreter import OVERDUE, QuietInterpreter

LOTS_NS = 10 * NS_PER_S


class Ring:
    """Refers to itself: only a collection finds that nobody else does."""

    def __init__(self):
        self.itself = self


def rings(count):
    """As many rings, let go; weak references to them."""
    return [weakref.ref(Ring()) for _ in range(count)]


def alive(references):
    return sum(reference() is not None for reference in references)


@pytest.fixture
def as_before():
    before = gc.isenabled(), sys.getswitchinterval(), gc.get_freeze_count()
    yield
    assert (gc.isenabled(), sys.getswitchinterval(), gc.get_freeze_count()) == before


@pytest.fixture
def quiet(as_before):
    with QuietInterpreter() as quiet:
        yield quiet


def test_meanwhile_nothing_is_collected_by_itself_and_locks_are_handed_on_soon(quiet):
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert sys.getswitchinterval() == pytest.approx(interpreter.SWITCH_S, abs=1e-6)
    made = rings(5 * gc.get_threshold()[0])
    assert alive(made) == len(made)


def test_garbage_is_collected_when_there_is_time(quiet):
    made = rings(gc.get_threshold()[0] + 100)
    quiet.turn(LOTS_NS)
    assert alive(made) == 0


def test_without_time_it_waits_and_not_for_ever(quiet):
    threshold = gc.get_threshold()[0]
    made = rings(2 * threshold)
    quiet.turn(0)
    assert alive(made) == len(made)
    made += rings(OVERDUE * threshold)
    quiet.turn(0)
    assert alive(made) == 0


def test_little_garbage_is_left_until_there_is_more(quiet):
    made = rings(3)
    quiet.turn(LOTS_NS)
    assert alive(made) == 3


@pytest.mark.parametrize("spare_ns", [0, LOTS_NS])
def test_nothing_grows_over_a_long_run_full_of_cycles(quiet, spare_ns):
    """What survives young collections is found by older ones, with or without time to spare."""
    most, keep = 0, []
    made = []
    for step in range(4000):
        keep.append(Ring())
        if step % 50 == 49:
            keep.clear()  # old enough to have survived some collections
        made += rings(20)
        quiet.turn(spare_ns)
        if step % 200 == 199:
            made = [reference for reference in made if reference() is not None]
            most = max(most, len(made))
    assert most <= (OVERDUE + 2) * max(gc.get_threshold()[0], 1)
    counts, thresholds = gc.get_count(), gc.get_threshold()
    assert all(count <= (OVERDUE + 1) * threshold for count, threshold in zip(counts, thresholds, strict=True))


def test_a_generation_that_takes_longer_than_there_is_time_is_left_alone(quiet):
    made = rings(2 * gc.get_threshold()[0])
    quiet._longest_ns[0] = NS_PER_S
    quiet.turn(NS_PER_S)
    assert alive(made) == len(made)
    quiet.turn(3 * NS_PER_S)
    assert alive(made) == 0


def test_a_second_one_leaves_everything_as_it_is(as_before):
    with QuietInterpreter() as first:
        with QuietInterpreter() as second:
            made = rings(2 * gc.get_threshold()[0])
            second.turn(LOTS_NS)
            assert alive(made) == len(made)
        assert not gc.isenabled()
        first.turn(LOTS_NS)
        assert alive(made) == 0
    with QuietInterpreter():
        assert not gc.isenabled()


def test_who_had_switched_collections_off_finds_them_off(as_before):
    gc.disable()
    try:
        with QuietInterpreter():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_error_within_restores_all(as_before):
    with pytest.raises(ZeroDivisionError), QuietInterpreter():
        raise ZeroDivisionError
