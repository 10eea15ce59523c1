from itertools import product

import pytest

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Target

CUP = Target(Kind.CUP, Colour.RED)


@pytest.mark.parametrize(("kind", "colour"), list(product(Kind, Colour)))
def test_a_name_with_colour_means_that_colour_and_one_without_any(kind, colour):
    assert CUP.matches(kind, colour) == (kind is Kind.CUP and colour is Colour.RED)
    assert Target(Kind.CUP).matches(kind, colour) == (kind is Kind.CUP)


@pytest.mark.parametrize("mode", Mode)
def test_a_target_is_named_when_going_and_only_then(mode):
    wrong = None if mode is Mode.GO else CUP
    with pytest.raises(ValueError, match="only GO has a target"):
        Goal(mode, wrong)


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.GO])
def test_a_side_is_named_when_going_and_only_then(mode):
    assert Goal(Mode.GO, CUP, Side.LEFT).side is Side.LEFT
    with pytest.raises(ValueError, match="cannot name a side"):
        Goal(mode, side=Side.LEFT)
