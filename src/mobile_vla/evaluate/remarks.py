"""What a reader of a comparison with recorded data has to know: which episodes, whose baselines, and who saw them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Part = Literal["test", "validation", "train", "all"]
PARTS: tuple[Part, ...] = get_args(Part)

FEW = 10
"""Below so many episodes a bootstrap over them gives intervals that are much too narrow."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Episodes judged, left out and in the part, and those that baselines are made from."""

    part: Part
    episodes: int
    left_out: int
    of_episodes: int
    sources: int


def about(judged: Judged) -> Iterator[str]:
    """In sentences."""
    if judged.part in ("test", "validation"):
        yield (
            f"The baselines are made from the {judged.sources} labelled episodes of the training part, none of them "
            "judged."
        )
    else:
        yield "The baselines are made anew for each episode, from the others of other scenes."
    if judged.episodes + judged.left_out < judged.of_episodes:
        yield f"{judged.episodes} of {judged.of_episodes} episodes, drawn by lot."
    if judged.episodes < FEW:
        yield f"So few episodes ({judged.episodes}) make the intervals much too narrow."
    if judged.left_out:
        yield f"Left out: {judged.left_out} without a frame that says what to do."


def learnt_from(origin: Mapping[str, Any], part: Part, data_hash: str, split_hash: str | None) -> str:
    """Whether the policy learnt from these episodes, as far as its checkpoint's ``origin`` tells, in a sentence.

    The origin names the hash of data and split for each data set that was trained on, under "data".
    """
    data = origin.get("data")
    known = [entry for entry in data.values() if isinstance(entry, Mapping)] if isinstance(data, Mapping) else []
    if not known:
        return "Nothing tells whether the policy was trained on these episodes."
    splits = [entry.get("split_hash") for entry in known if entry.get("data_hash") == data_hash]
    if not splits:
        return "The policy's checkpoint names other data sets than this one as those it was trained on."
    if part == "all":
        return "The policy was trained on a part of these episodes: its errors are in part those of memory."
    if part == "train":
        return "The policy was trained on this data set: its errors may be those of memory."
    if split_hash in splits:
        return "The policy was trained on the training part of this very split, and not on these episodes."
    return "The policy was trained on these data under another split, so it may have learnt these episodes by heart."
