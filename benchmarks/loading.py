"""How fast samples come from a data set: the images decoded, and the columns of numbers beside them."""

import argparse
import time
from pathlib import Path

from machine import describe
from mobile_vla.data import Dataset, schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="folder of a data set, e.g. RUN/data/survey")
    parser.add_argument("--episodes", type=int, default=500, help="at most so many (default 500)")
    options = parser.parse_args()
    describe()
    began = time.perf_counter()
    dataset = Dataset.open(options.dataset)
    print(f"opened {len(dataset)} episodes, {dataset.total_frames} frames in {time.perf_counter() - began:.2f} s")
    chosen = dataset.episode_indices[: options.episodes]
    for threads in (1, 2):
        began = time.perf_counter()
        frames = sum(len(batch.rows) for batch in dataset.image_batches(64, chosen, threads))
        spent = time.perf_counter() - began
        height, width, _ = dataset.image_shape
        print(
            f"{width}x{height} images in batches of 64, {threads} threads: {frames / spent:10,.0f} samples/s ({frames})"
        )
    names = [schema.STATE, schema.ACTION, schema.ACTION_CHUNK, schema.STATUS]
    began = time.perf_counter()
    rows = len(dataset.columns(names, chosen)[schema.STATE])
    print(f"columns of numbers: {rows / (time.perf_counter() - began):,.0f} samples/s ({rows})")


if __name__ == "__main__":
    main()
