import numpy as np
import pytest
import torch

from mobile_vla.core import ActionContract, Colour, Kind, Mode, Target
from mobile_vla.language import Grammar
from mobile_vla.policy.compact import CELLS, COLUMNS, STRIDE, CompactConfig, CompactNetwork
from mobile_vla.train.see import NAMES, box_error, goal_anchors, pointing_targets, settle_loss


def rows(*objects: tuple[Kind, Colour, float, float, float]) -> torch.Tensor:
    """Object rows of one frame: kind, colour, u and v in pixels, visible fraction."""
    table = np.full((1, 8, 8), -1.0, np.float32)
    for place, (kind, colour, u, v, seen) in enumerate(objects):
        table[0, place] = (list(Kind).index(kind), list(Colour).index(colour), u, v, 6.0, 4.0, seen, 1.5)
    return torch.from_numpy(table)


def name(kind: Kind, colour: Colour | None) -> int:
    return NAMES.index(Target(kind, colour))


def test_an_object_in_view_is_wanted_where_it_stands_with_and_without_its_colour() -> None:
    u, v = 10.5 * STRIDE, 4.5 * STRIDE
    wanted, weight = pointing_targets(rows((Kind.CUP, Colour.RED, u, v, 1.0)))
    for colour in (Colour.RED, None):
        row = wanted[0, name(Kind.CUP, colour)]
        assert row[4 * COLUMNS + 10] == pytest.approx(1.0)
        assert weight[0, name(Kind.CUP, colour)] == 1.0
    assert wanted[0, name(Kind.CUP, Colour.BLUE), CELLS] == 1.0
    assert wanted[0, name(Kind.BALL, Colour.RED), CELLS] == 1.0


def test_between_two_cells_each_is_wanted_by_half() -> None:
    wanted, _ = pointing_targets(rows((Kind.CUP, Colour.RED, 11 * STRIDE, 4.5 * STRIDE, 1.0)))
    row = wanted[0, name(Kind.CUP, Colour.RED)]
    assert row[4 * COLUMNS + 10] == pytest.approx(0.5)
    assert row[4 * COLUMNS + 11] == pytest.approx(0.5)


def test_wanted_shares_are_shares_and_two_of_a_kind_divide_them() -> None:
    wanted, _ = pointing_targets(
        rows(
            (Kind.CUP, Colour.RED, 20, 30, 1.0), (Kind.CUP, Colour.BLUE, 150, 40, 0.8), (Kind.BOX, Colour.RED, 0, 95, 1)
        )
    )
    torch.testing.assert_close(wanted.sum(2), torch.ones(1, len(NAMES)))
    row = wanted[0, name(Kind.CUP, None)]
    left = sum(float(row[r * COLUMNS + c]) for r in range(12) for c in range(12))
    assert left == pytest.approx(0.5)


def test_what_is_hardly_visible_is_neither_taught_nor_denied() -> None:
    wanted, weight = pointing_targets(rows((Kind.CUP, Colour.RED, 50, 50, 0.15)))
    assert weight[0, name(Kind.CUP, Colour.RED)] == 0.0
    assert wanted[0, name(Kind.CUP, Colour.RED), CELLS] == 1.0


def test_every_goal_has_an_anchor_and_settling_draws_phrases_to_it() -> None:
    torch.manual_seed(0)
    config = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=8, memory=8)
    network, grammar = CompactNetwork(config, ActionContract()), Grammar.load()
    anchors = goal_anchors(network, grammar, np.random.default_rng(0))
    assert len(anchors) == 3 * len(NAMES) + len(Mode) - 1
    network.text.train()
    optimizer = torch.optim.Adam(network.text.parameters(), lr=2e-3)
    away = []
    for step in range(12):
        loss, figures = settle_loss(network, anchors, grammar, 16, np.random.default_rng(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        away.append(figures["away"])
    assert np.mean(away[-3:]) < np.mean(away[:3])


def test_a_right_box_has_no_error() -> None:
    objects = rows((Kind.CUP, Colour.RED, 84.0, 36.0, 1.0))
    boxes = torch.zeros(1, CELLS, 5)
    for row in range(12):
        for column in range(COLUMNS):
            boxes[0, row * COLUMNS + column] = torch.tensor(
                [
                    84.0 / STRIDE - column - 0.5,
                    36.0 / STRIDE - row - 0.5,
                    np.log(6.0 / STRIDE),
                    np.log(4.0 / STRIDE),
                    np.log(1.5),
                ]
            )
    assert float(box_error(boxes, objects)) == pytest.approx(0.0, abs=1e-9)
    assert float(box_error(boxes + 0.3, objects)) > 0.01
