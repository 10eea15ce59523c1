"""``mobile-vla train``: make a policy, from nothing, or from another checkpoint, to a checkpoint."""

import argparse
import contextlib
import sys
from pathlib import Path

from mobile_vla.cli.shared import Commands, add_json, print_json


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("train", help="make data and train a policy on it; goes on where it was cut off")
    parser.add_argument("run_dir", type=Path, help="folder of the run; one that has begun is resumed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. see.steps=2000")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument(
        "--init-from", type=Path, metavar="PATH", help="begin with those weights of this checkpoint that fit"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; 0 when the final checkpoint stands."""
    from mobile_vla.train.config import read_config
    from mobile_vla.train.run import train

    config = read_config(options.config, options.overrides)
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        final = train(config, options.run_dir, options.init_from)
    if options.json:
        print_json({"policy": final})
    else:
        print(f'the policy is in {final}; drive with it: mobile-vla drive --policy {final} --say "go to the red cup"')
    return 0
