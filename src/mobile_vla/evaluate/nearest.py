"""Recorded episodes whose instruction is most like another one, found without looking at a single picture."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

SAME = 3
"""So many episodes with the very same words are enough to ask nobody else: other words may name the other side."""

NEIGHBOURS = 10
"""Episodes that are asked otherwise: the best of 1, 5, 10, 20, 40 and 80 on drives whose words seldom repeat."""

MOST = 100
"""Where more instructions than this are equally near, the first ones serve."""

SIMILARITY = "the share of characters in common and in order (Indel similarity), case and spaces aside"


class Instructions:
    """Texts by the number of their episode, to be searched for those most like another."""

    def __init__(self, texts: Sequence[str], episodes: Sequence[int]) -> None:
        self._distinct = sorted({plain(text) for text in texts})
        places = {text: place for place, text in enumerate(self._distinct)}
        self._place_of = np.array([places[plain(text)] for text in texts], dtype=np.int64)
        self._episodes = np.array(episodes, dtype=np.int64)

    def nearest(self, text: str, but: Sequence[int] = ()) -> list[int]:
        """Those with the same words as ``text``, where there are ``SAME`` or more, or else the ``NEIGHBOURS`` nearest.

        None of them is in ``but``. All that are as near as the last one are there too, up to ``MOST``, the nearest
        first; fewer where there are no more.
        """
        likeness = process.cdist([plain(text)], self._distinct, scorer=fuzz.ratio)[0][self._place_of]  # 100: the same
        allowed = np.flatnonzero(~np.isin(self._episodes, np.asarray(but, dtype=np.int64)))
        order = allowed[np.argsort(-likeness[allowed], kind="stable")]
        wanted = SAME if np.count_nonzero(likeness[allowed] == 100) >= SAME else NEIGHBOURS
        if len(order) > wanted:
            order = order[likeness[order] >= likeness[order[wanted - 1]]]
        return [int(episode) for episode in self._episodes[order[:MOST]]]


def plain(text: str) -> str:
    """Without differences of case and spacing."""
    return " ".join(text.casefold().split())


def median_course(
    neighbours: Sequence[int], chunks_of: Callable[[int], NDArray[np.float32]], otherwise: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The median of the neighbours' chunks at each frame since their beginning, as long as the longest of them.

    ``chunks_of``: (T, horizon, axes) of an episode, NaN where unknown; one that has ended keeps its last chunk.
    ``otherwise``: (horizon, axes), for what no neighbour knows.
    """
    courses = [chunks_of(neighbour) for neighbour in neighbours]
    frames = np.arange(max(map(len, courses)))
    stacked = np.stack([course[np.minimum(frames, len(course) - 1)] for course in courses])
    unknown = np.isnan(stacked).all(axis=0)
    stacked[:, unknown] = np.broadcast_to(otherwise, unknown.shape)[unknown]
    middle: NDArray[np.float32] = np.nanmedian(stacked, axis=0)
    return middle
