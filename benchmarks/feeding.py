"""How fast frames come to the training of the full-size policies: windows of drives, and survey frames asked for names.

Nothing is kept at first, so that every frame is read and decoded; then as much as ``--cache`` says. The first draw from
an episode also finds where its images lie. With ``--camera`` frames of such a size are written to a temporary folder
and fitted to the policy's picture, as with a recording from a real robot.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch

from machine import describe
from mobile_vla.core import ActionContract
from mobile_vla.data import Dataset, EpisodeWriter, schema
from mobile_vla.train.feed import Feed

BATCH, NAMES = 64, 8
EPISODES, LENGTH = 6, 40


class Whole:
    """One process, one pass: the piece is the batch."""

    def part(self, batch: int) -> slice:
        return slice(0, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, help="a data set of drives, e.g. RUN/data/drive-0")
    parser.add_argument("--survey", type=Path, help="a data set whose frames tell their objects, e.g. RUN/data/survey")
    parser.add_argument("--camera", help="HEIGHTxWIDTH of made-up camera frames, e.g. 720x1280")
    parser.add_argument("--size", default="96x192", help="HEIGHTxWIDTH of the policy's picture (default 96x192)")
    parser.add_argument("--length", type=int, default=8, help="frames a window (default 8)")
    parser.add_argument("--episodes", type=int, default=1000, help="at most so many (default 1000)")
    parser.add_argument("--cache", type=float, default=2.0, help="GiB (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="that decode (default 1)")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each figure (default 6)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    describe()
    if options.drive:
        _measure(Dataset.open(options.drive), "windows", options)
    if options.survey:
        _measure(Dataset.open(options.survey), "asked", options)
    if options.camera:
        with tempfile.TemporaryDirectory() as folder:
            _measure(_made_up(Path(folder) / "camera", _size(options.camera)), "windows", options)


def _measure(dataset: Dataset, kind: str, options: argparse.Namespace) -> None:
    height, width, _ = dataset.image_shape
    chosen = dataset.episode_indices[: options.episodes]
    for cache_bytes in (0, int(options.cache * 2**30)):
        began = time.perf_counter()
        feed = Feed([(dataset, chosen)], _size(options.size), cache_bytes, threads=options.threads)
        spent = time.perf_counter() - began
        print(f"\n{dataset.root}: {feed.frames} frames of {height}x{width}, numbers read in {spent:.1f} s")
        print(f"{kind}, fitted to {options.size}, {options.threads} threads, cache of {cache_bytes / 2**30:.1f} GiB")
        draws = _draws(feed, kind, options.length)
        _rate("the first draws, images being found", draws, 0.0, at_least=feed.frames // 4)
        _rate("then", draws, options.seconds)
        if cache_bytes:
            _rate("once more, the cache being fuller", draws, options.seconds)
        print(
            f"fitted frames held: {feed.held_bytes / 2**20:,.0f} MiB; process at its largest: {_largest_mib():,.0f} MiB"
        )


def _draws(feed: Feed, kind: str, length: int) -> Iterator[int]:
    """Frames of one batch after another."""
    for step in count():
        rng = np.random.default_rng([1, step])
        if kind == "asked":
            yield len(feed.asked(rng, Whole(), BATCH, NAMES).pixels)
        else:
            # few at a time where the data set is small: a frame drawn twice in a batch is decoded once
            batch = max(1, min(BATCH, feed.frames // (8 * length)))
            yield int(feed.windows(rng, Whole(), batch, length).frames.mask.sum())


def _rate(name: str, draws: Iterator[int], seconds: float, at_least: int = 0) -> None:
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or done < at_least:
        done += next(draws)
    print(f"  {name:44} {done / (time.perf_counter() - began):10,.0f} frames/s ({done})")


def _made_up(root: Path, size: tuple[int, int]) -> Dataset:
    """Smooth random pictures with some noise: JPEG files about as large as a camera's."""
    rng, contract = np.random.default_rng(0), ActionContract()
    with EpisodeWriter(root, contract, (*size, 3), {"made_up": True}) as writer:
        for _ in range(EPISODES):
            with writer.episode("go to the red cup", {}) as episode:
                for place in range(LENGTH):
                    episode.add(
                        {
                            schema.IMAGE_FRONT: _picture(rng, size),
                            schema.STATE: np.zeros(3),
                            schema.ACTION: np.zeros(3),
                            schema.ACTION_CHUNK: np.zeros((contract.horizon, 3)),
                            schema.CAPTURE_NS: place,
                            schema.SEQUENCE: place,
                        }
                    )
    return Dataset.open(root)


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 18, 32)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def _largest_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
