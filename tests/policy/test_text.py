import numpy as np
import torch

from mobile_vla.core import Colour, Goal, Kind, Mode, Side, Target
from mobile_vla.language import encode
from mobile_vla.policy.text import SLOT_SIZES, TextEncoder, goal_slots


def tokens(*texts: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([encode(text) for text in texts]))


def test_every_slot_of_a_goal_has_a_class_of_its_own() -> None:
    goals = [
        Goal(Mode.GO, Target(kind, colour), side)
        for kind in Kind
        for colour in (*Colour, None)
        for side in (*Side, None)
    ]
    slots = [goal_slots(goal) for goal in goals]
    assert len(set(slots)) == len(goals)
    assert all(0 <= value < size for row in slots for value, size in zip(row, SLOT_SIZES.values(), strict=True))


def test_what_stands_beside_a_text_in_its_batch_does_not_change_it() -> None:
    encoder = TextEncoder(width=16, channels=16, pools=2).eval()
    alone = encoder(tokens("go to the red cup"))
    together = encoder(tokens("go to the red cup", "상자를 왼쪽으로 돌아서 파란 의자까지 가 주세요"))
    torch.testing.assert_close(together[:1], alone)


def test_the_slots_can_be_learnt_from_their_loss() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(width=16, channels=16, pools=2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.01)
    texts = tokens("turn left", "turn right", "go to the red cup", "빨간 컵까지 가")
    red_cup = Goal(Mode.GO, Target(Kind.CUP, Colour.RED))
    slots = torch.tensor([goal_slots(g) for g in (Goal(Mode.TURN_LEFT), Goal(Mode.TURN_RIGHT), red_cup, red_cup)])
    first = last = 0.0
    for step in range(60):
        loss = encoder.slot_loss(encoder(texts), slots)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())
    assert last < 0.5 * first
