"""What a decision takes at least on a Jetson Orin, PREDICTED: by counting the network and by published figures of the
board. Nothing here was run on one. The table of docs/jetson.md.

    python benchmarks/jetson.py
"""

import argparse

from mobile_vla.engine.bench.counting import count
from mobile_vla.engine.bench.drawn import drawn
from mobile_vla.engine.bench.roofline import PREDICTED, floor_s
from mobile_vla.policy.step import step_of

BOARDS = ("orin-agx-64gb", "orin-nx-16gb")
KINDS = ("compact", "clip_lstm", "kosmos_clip")
PRECISIONS = ("fp16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    print("PREDICTED: floors, which nothing reaches; see docs/jetson.md for what they leave out")
    print("| policy | precision | weights read | arithmetic | " + " | ".join(f"{each}" for each in BOARDS) + " |")
    print("|---|---|---|---|" + "---|" * len(BOARDS))
    for kind in options.kinds:
        step = step_of(drawn(kind, device="cpu" if kind == "compact" else "meta"))  # its words are read, not given
        for precision in PRECISIONS:
            counted = count(step, tuple(step.example(1)), precision)
            cells = []
            for board in BOARDS:
                floor = floor_s(counted, PREDICTED[board], precision)
                cells.append(f"{floor.seconds * 1e3:.3g} ms ({floor.bound_by})")
            weights, arithmetic = counted.weight_bytes / 1e6, counted.flops / 1e9
            print(f"| {kind} | {precision} | {weights:,.1f} MB | {arithmetic:,.2f} GFLOP | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
