import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Target
from mobile_vla.data import Dataset, load_split
from mobile_vla.language import Grammar
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.pointer import WHAT, Pointed
from mobile_vla.policy.text import SLOT_SIZES, goal_slots
from mobile_vla.policy.vla import VlaNetwork
from mobile_vla.train.ask import _around, ask_loss, draw_asking, grounding_loss, meaning_loss, range_loss, what_loss
from mobile_vla.train.config import read_vla_config
from mobile_vla.train.feed import Feed, Scene
from mobile_vla.train.loop import Piece

from .vla_data import CONTRACT, SMALL, TOWERS, written

GRID = (4, 8)
CELLS = GRID[0] * GRID[1]


@pytest.fixture(scope="module")
def network() -> VlaNetwork:
    kind = kind_named("clip_lstm")
    config = read_vla_config(kind, None, [*SMALL, *TOWERS["clip_lstm"]])
    torch.manual_seed(0)
    made = kind.make(config.network, CONTRACT)
    assert isinstance(made, VlaNetwork)
    return made.eval()


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    dataset = Dataset.open(written(tmp_path_factory.mktemp("ask") / "data"))
    return Feed([(dataset, load_split(dataset).train)], (96, 192))


def pointed(logits: Tensor, boxes: Tensor) -> Pointed:
    return Pointed(logits, boxes.mean(1), boxes, torch.zeros(len(logits)), torch.zeros(len(logits), 1))


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_the_cells_around_a_point_have_it_as_their_mean(u: float, v: float) -> None:
    cells, shares = _around(torch.tensor([[u, v]]), GRID)
    assert shares.sum().item() == pytest.approx(1.0, abs=1e-5)
    column, row = (cells % GRID[1]).float() + 0.5, (cells // GRID[1]).float() + 0.5
    mean = torch.stack([(column * shares).sum() / GRID[1], (row * shares).sum() / GRID[0]])
    inside = torch.tensor(
        [min(max(u, 0.5 / GRID[1]), 1 - 0.5 / GRID[1]), min(max(v, 0.5 / GRID[0]), 1 - 0.5 / GRID[0])]
    )
    torch.testing.assert_close(mean, inside, atol=1e-4, rtol=0)


def test_pointing_at_the_right_place_with_the_right_box_costs_nearly_nothing() -> None:
    box = torch.tensor([[0.30, 0.40, 0.34, 0.60]])
    cells, shares = _around(0.5 * (box[:, :2] + box[:, 2:]), GRID)
    logits = torch.full((1, CELLS + 1), -30.0).scatter(1, cells, shares.clamp_min(1e-9).log())
    truth = torch.tensor([0.32, 0.50, 0.02, 0.10, math.log(1.5)])
    visible, distance = torch.tensor([0.9]), torch.tensor([1.5])
    point, boxes, figures = grounding_loss(pointed(logits, truth.expand(1, CELLS, 5)), visible, box, distance, GRID)
    entropy = -(shares * shares.clamp_min(1e-9).log()).sum()
    assert point.item() == pytest.approx(entropy.item(), abs=1e-3)
    assert boxes.item() == pytest.approx(0.0, abs=1e-5)
    assert (figures["hit"], math.isnan(figures["false"])) == (1.0, True)


def test_what_is_not_in_view_is_to_be_pointed_at_nowhere() -> None:
    logits = torch.zeros(2, CELLS + 1)
    logits[0, -1] = logits[1, 3] = 20.0
    visible, nan = torch.zeros(2), torch.full((2,), float("nan"))
    point, boxes, figures = grounding_loss(
        pointed(logits, torch.zeros(2, CELLS, 5)), visible, nan[:, None].expand(2, 4), nan, GRID
    )
    assert figures["false"] == 0.5
    assert point.item() == pytest.approx(0.5 * 20.0 / 2, rel=0.01)
    assert boxes.item() == 0.0


def test_what_can_hardly_be_seen_or_is_unknown_teaches_nothing() -> None:
    logits = torch.randn(2, CELLS + 1, requires_grad=True)
    visible, nan = torch.tensor([0.2, float("nan")]), torch.full((2,), float("nan"))
    point, boxes, _ = grounding_loss(
        pointed(logits, torch.rand(2, CELLS, 5)), visible, nan[:, None].expand(2, 4), nan, GRID
    )
    (point + boxes).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def scene(frames: int) -> Scene:
    rng = np.random.default_rng(1)
    kinds = np.full((frames, 8), -1, np.int8)
    kinds[:, 0] = 2
    seen = np.full((frames, 8), -1.0, np.float32)
    seen[:, 0] = 1.0
    boxes = np.zeros((frames, 8, 4), np.float32)
    boxes[:, 0] = (0.40, 0.40, 0.60, 0.60)
    ranges = rng.uniform(0.5, 3.0, (frames, 24)).astype(np.float32)
    return Scene(kinds, kinds // 2, seen, boxes, np.ones((frames, 8), np.float32), ranges)


def test_what_stands_at_a_patch_is_learnt_where_it_stands() -> None:
    what = torch.zeros(1, CELLS, WHAT, requires_grad=True)
    loss = what_loss(what, scene(1), GRID)
    loss.backward()
    assert what.grad is not None
    named = what.grad[0, :, : WHAT - 1].abs().sum(1) > 0
    cells, shares = _around(torch.tensor([[0.5, 0.5]]), GRID)
    assert set(torch.nonzero(named)[:, 0].tolist()) == set(cells[shares > 0].tolist())


def test_ranges_of_other_columns_are_compared_at_the_same_directions() -> None:
    metres = torch.linspace(0.5, 4.0, 24).exp().clamp(0.1, 5)[None]
    coarse = torch.nn.functional.interpolate(metres.log()[:, None], size=8, mode="linear", align_corners=False)[:, 0]
    assert range_loss(coarse, metres).item() == pytest.approx(0.0, abs=1e-6)
    assert range_loss(coarse + 1.0, metres).item() > 0.1
    assert range_loss(coarse + 1.0, torch.full_like(metres, float("nan"))).item() == 0.0


def test_pieces_of_a_batch_have_the_loss_of_the_batch(network: VlaNetwork, feed: Feed) -> None:
    grammar = Grammar.load()
    draw = partial(draw_asking, network, feed, grammar, 6, 3)

    def loss(piece: Piece) -> float:
        asking = draw(np.random.default_rng(5), piece)
        with torch.no_grad():
            return ask_loss(network(asking.inputs), asking, network.pointer.grid)[0].item()

    parts = [loss(Piece(place, 3)) for place in range(3)]
    # what stands where is a mean over the objects of a piece's own frames
    assert np.mean(parts) == pytest.approx(loss(Piece()), rel=1e-4)


def test_some_are_asked_for_a_motion_and_name_nothing(network: VlaNetwork, feed: Feed) -> None:
    asking = draw_asking(network, feed, Grammar.load(), 32, 3, np.random.default_rng(1), Piece())
    plain = asking.slots[:, 0] != 0  # Mode.GO is the first
    assert 0.0 < plain.float().mean() < 0.4
    assert torch.isnan(asking.visible[plain]).all()
    assert (asking.slots[plain, 3] == len(Side)).all()
    assert len(asking.slots[~plain, 3].unique()) == len(Side) + 1


def test_the_meaning_costs_nothing_where_it_is_right() -> None:
    slots = torch.tensor(
        [goal_slots(Goal(Mode.GO, Target(Kind.CUP, Colour.RED), Side.LEFT)), goal_slots(Goal(Mode.STOP))]
    )
    parts = [F.one_hot(slots[:, place], size) * 40.0 for place, size in enumerate(SLOT_SIZES.values())]
    right = torch.cat(parts, dim=1).float()
    assert meaning_loss(right, slots).item() == pytest.approx(0.0, abs=1e-4)
    assert meaning_loss(right, slots.flip(0)).item() > 40.0
