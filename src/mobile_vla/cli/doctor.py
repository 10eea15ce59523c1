"""``mobile-vla doctor``: is this machine fit to drive, and if not, which line repairs it?"""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla.cli.shared import Commands, add_json, print_json

if TYPE_CHECKING:
    from mobile_vla.doctor import Purpose


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="check this machine: Python, torch, GPU, cameras, CAN, serial ports, DDS, disk, clock, checkpoint",
        description="Check what a drive needs on this machine. Nothing is changed and nothing moves. "
        "The exit code is 0 when the drive that is asked about can begin, and 1 when it would fail.",
    )
    parser.add_argument(
        "--robot",
        type=Path,
        metavar="FILE",
        help="robot file: its camera is opened and measured, its base is opened; without it a simulated drive is meant",
    )
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings of the robot, e.g. camera.device=/dev/video2"
    )
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument(
        "--policy",
        metavar="latest|best|PATH",
        help="checkpoint folder, or the latest or best whole one below runs/; by default the one that is shipped",
    )
    policy.add_argument(
        "--without-policy", action="store_true", help="the policy runs on another machine: no torch is needed here"
    )
    parser.add_argument("--fix-hints", action="store_true", help="print the repairs alone, as lines of a shell script")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0: the drive can begin; 1: it would fail."""
    from mobile_vla.doctor import driving_fails, examine

    began = time.monotonic()
    purpose = _purpose(options)
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("looking") as status:
            checks = examine(purpose, lambda name: status.update(f"looking at: {name}"))
    else:
        checks = examine(purpose)
    fails = driving_fails(checks)
    if options.json:
        from mobile_vla.doctor.show import values

        seconds = round(time.monotonic() - began, 1)
        print_json({"fit": not fails, "seconds": seconds, "checks": [values(check) for check in checks]})
    elif options.fix_hints:
        from mobile_vla.doctor.show import repair_script

        print(repair_script(checks))
    else:
        from rich.console import Console

        from mobile_vla.doctor.show import print_table

        print_table(checks, Console())
        robot = " ".join(map(str, filter(None, (options.robot, *options.settings))))
        drive = f"a drive with {robot}" if robot else "a simulated drive"
        print(f"\n{drive} {'would fail' if fails else 'can begin'}")
    return 1 if fails else 0


def _purpose(options: argparse.Namespace) -> "Purpose":
    from mobile_vla.doctor import Purpose
    from mobile_vla.doctor.purpose import SHIPPED

    robot = None
    if options.robot is not None or options.settings:
        from mobile_vla.runtime.config import read_robot

        robot = read_robot(options.robot, options.settings)
    policy: Path | None = SHIPPED
    if options.without_policy:
        policy = None
    elif options.policy is not None:
        from mobile_vla.checkpoint.find import wanted
        from mobile_vla.cli.shared import RUNS, policy_kinds

        policy = wanted(options.policy, [RUNS], policy_kinds())
    return Purpose(policy, robot, options.robot, tuple(options.settings))
