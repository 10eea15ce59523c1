import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mobile_vla.core import Status
from mobile_vla.policy.compact import bearing_of
from mobile_vla.policy.pointer import FreeWay, Pointed, Pointer, grounding_of

GRID, WIDTH = (3, 6), 8
CELLS = GRID[0] * GRID[1]


@pytest.fixture
def pointer() -> Pointer:
    torch.manual_seed(1)
    return Pointer(WIDTH, 5, GRID, 16)


def ask(pointer: Pointer, patches: Tensor, question: Tensor) -> Pointed:
    pointed: Pointed = pointer(*pointer.describe(patches), question)
    return pointed


@settings(max_examples=30)
@given(cell=st.integers(0, CELLS - 1), du=st.floats(-0.5, 0.5), dv=st.floats(-0.5, 0.5), log_half=st.floats(-9.0, 9.0))
def test_a_patch_tells_its_own_place(cell: int, du: float, dv: float, log_half: float) -> None:
    pointer = Pointer(WIDTH, 5, GRID, 16)
    with torch.no_grad():
        pointer.box.weight.zero_()
        pointer.box.bias.copy_(torch.tensor([du, dv, log_half, log_half, 0.7]))
        box = pointer.describe(torch.zeros(1, CELLS, WIDTH))[1][0, cell]
    row, column = divmod(cell, GRID[1])
    half = math.exp(max(-6.0, min(6.0, log_half)))
    wanted = [(column + 0.5 + du) / GRID[1], (row + 0.5 + dv) / GRID[0], half / GRID[1], half / GRID[0], 0.7]
    torch.testing.assert_close(box, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def test_a_key_like_the_question_is_pointed_at(pointer: Pointer) -> None:
    question, patches = torch.randn(1, 5), torch.randn(1, CELLS, WIDTH)
    keys, boxes = pointer.describe(patches)
    with torch.no_grad():
        keys[0, 7] = 20.0 * torch.nn.functional.normalize(pointer.query(question), dim=-1)[0]
        pointed = pointer(keys, boxes, question)
    assert int(pointed.logits.argmax()) == 7
    torch.testing.assert_close(pointed.box[0], boxes[0, 7], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pointed.bearing, bearing_of(pointed.box[:, 0], pointed.box[:, 4]))
    assert pointed.logits.shape == (1, CELLS + 1)
    assert pointed.features.shape == (1, pointer.features)


def test_frames_do_not_mix(pointer: Pointer) -> None:
    patches, question = torch.randn(3, CELLS, WIDTH), torch.randn(3, 5)
    together = ask(pointer, patches, question)
    for place in range(3):
        alone = ask(pointer, patches[place : place + 1], question[place : place + 1])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[place], rtol=1e-5, atol=1e-5)


def test_in_bfloat16_places_stay_exact_and_inputs_may_be_of_either_type(pointer: Pointer) -> None:
    patches, question = torch.zeros(1, CELLS, WIDTH), torch.randn(1, 5)
    with torch.no_grad():
        pointer.box.weight.zero_()
        pointer.box.bias.zero_()
    exact = ask(pointer, patches, question)
    pointer.to(torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        rounded = ask(pointer, patches.to(dtype), question.to(dtype))
        assert torch.equal(rounded.boxes, exact.boxes)
        assert {part.dtype for part in rounded} == {torch.float32}
    way = FreeWay(WIDTH, GRID).to(torch.bfloat16)
    assert {part.dtype for part in way(patches)} == {torch.float32}


def test_a_column_of_the_way_is_what_its_patches_say() -> None:
    torch.manual_seed(2)
    way = FreeWay(WIDTH, GRID)
    patches = torch.randn(1, CELLS, WIDTH)
    changed = patches.clone().unflatten(1, GRID)
    changed[:, :, 4] += 1.0
    (before, seen), (after, _) = way(patches), way(changed.flatten(1, 2))
    assert before.shape == (1, GRID[1])
    assert seen.shape == (1, way.features)
    assert (before != after)[0].tolist() == [column == 4 for column in range(GRID[1])]


@pytest.mark.parametrize("log_distance", [-3.0, 0.4, 5.0, 200.0])
def test_a_grounding_is_in_physical_units(log_distance: float) -> None:
    logits = torch.full((1, CELLS + 1), -math.inf)
    logits[0, [3, CELLS]] = torch.tensor([0.0, math.log(3.0)])
    box = torch.tensor([[0.25, 0.5, 0.05, 0.1, log_distance]])
    pointed = Pointed(logits, box, box[:, None].expand(-1, CELLS, -1), torch.tensor([0.3]), torch.zeros(1, 1))
    grounding = grounding_of(pointed, Status.SEARCHING)
    assert grounding.visibility == pytest.approx(0.25)
    assert grounding.box == pytest.approx((0.2, 0.4, 0.3, 0.6))
    assert grounding.distance_m == pytest.approx(min(math.exp(min(log_distance, 3.0)), 10.0))
    assert (grounding.bearing_rad, grounding.status) == (pytest.approx(0.3), Status.SEARCHING)
