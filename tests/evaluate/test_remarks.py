from collections.abc import Mapping
from typing import Any

import pytest

from mobile_vla.evaluate.remarks import FEW, Judged, Part, about, learnt_from

TRAINED: Mapping[str, Any] = {
    "data": {"drives": {"data_hash": "d", "split_hash": "s"}, "words": {"data_hash": "w", "split_hash": "v"}}
}


@pytest.mark.parametrize(
    ("origin", "part", "data", "split", "said"),
    [
        (TRAINED, "test", "d", "s", "not on these episodes"),
        (TRAINED, "validation", "d", "s", "not on these episodes"),
        (TRAINED, "test", "d", "v", "may have learnt these episodes by heart"),
        (TRAINED, "train", "d", "s", "those of memory"),
        (TRAINED, "all", "w", None, "trained on a part of these"),
        (TRAINED, "test", "x", "s", "names other data sets"),
        ({}, "test", "d", "s", "Nothing tells"),
        ({"data": "somewhere"}, "test", "d", "s", "Nothing tells"),
    ],
)
def test_it_is_said_whether_the_policy_learnt_from_them(
    origin: Mapping[str, Any], part: Part, data: str, split: str | None, said: str
) -> None:
    assert said in learnt_from(origin, part, data, split)


def test_only_what_matters_is_said() -> None:
    assert list(about(Judged("test", FEW, 0, FEW, 7))) == [
        "The baselines are made from the 7 labelled episodes of the training part, none of them judged."
    ]
    said = " ".join(about(Judged("all", FEW - 1, 3, 40, 20)))
    assert "anew for each episode" in said
    assert f"{FEW - 1} of 40 episodes, drawn by lot" in said
    assert "too narrow" in said
    assert "Left out: 3" in said
