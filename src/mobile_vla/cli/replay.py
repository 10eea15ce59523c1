"""``mobile-vla replay``: a recording through the policy again, compared with what it decided then."""

import argparse
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, add_policy, policy_folder, print_json


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("replay", help="feed a recorded drive through a policy and compare")
    parser.add_argument("bag", type=Path, help="folder of mobile-vla up --record or ros2 bag record, or an .mcap file")
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 once compared, whatever came out: another policy is meant to differ."""
    import torch

    from mobile_vla.engine.load import load_policy
    from mobile_vla.ros.bag import BagReader
    from mobile_vla.ros.replay import replay

    torch.set_num_threads(1)  # as on the robot, so that the same weights give the same bits
    with BagReader(options.bag) as recording:
        comparison = replay(recording, load_policy(policy_folder(options)))
    count = len(comparison.decisions)
    mean, zero = comparison.mean_difference(), comparison.mean_of_zero()
    if options.json:
        print_json(
            {
                "decisions": count,
                "frames_missing": comparison.frames_missing,
                "frames_lossless": comparison.lossless,
                "same_to_the_bit": comparison.same_to_the_bit,
                "same_status": comparison.same_status,
                "mean_difference": mean,
                "mean_difference_of_standing_still": zero,
                "largest_difference": comparison.largest_difference(),
            }
        )
        return 0
    frames = "raw" if comparison.lossless else "JPEG, so small differences are those of the pictures"
    print(f"{count} decisions again, frames {frames}; {comparison.frames_missing} lack their frame")
    print(f"chunks the same to the bit: {comparison.same_to_the_bit} of {count}")
    print(f"status the same: {comparison.same_status} of {count}")
    for axis, value in mean.items():
        print(f"mean difference {axis}: {value:.2g} (of a policy that stands still: {zero[axis]:.2g})")
    print(f"largest difference: {comparison.largest_difference():.2g}")
    return 0
