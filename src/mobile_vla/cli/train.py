"""``mobile-vla train``: make a policy of any kind, from nothing, from data, or from another checkpoint."""

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
    parser.add_argument("--policy", default="compact", metavar="KIND", help="what to train (default compact)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a full-size policy learns from this data set; may be repeated; by default it makes data in the simulator",
    )
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument(
        "--init-from", type=Path, metavar="PATH", help="begin with those weights of this checkpoint that fit"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="make data on this Ray cluster, e.g. auto or host:6379; one worker a CPU"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; 0 when the final checkpoint stands."""
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        final = _compact(options) if options.policy == "compact" else _vla(options)
    if final is None:
        return 0
    if options.json:
        print_json({"policy": final})
    else:
        print(f'the policy is in {final}; drive with it: mobile-vla drive --policy {final} --say "go to the red cup"')
    return 0


def _compact(options: argparse.Namespace) -> Path:
    from mobile_vla.core import ConfigError
    from mobile_vla.train.config import read_config
    from mobile_vla.train.run import train

    if options.data:
        raise ConfigError("the compact policy makes its own data: leave --data out, or name another --policy")
    return train(read_config(options.config, options.overrides), options.run_dir, options.init_from, options.ray)


def _vla(options: argparse.Namespace) -> Path | None:
    """None on all but the first of several processes: that one says where the policy is."""
    from mobile_vla.core import ConfigError
    from mobile_vla.policy.kinds import kind_named
    from mobile_vla.train.config import read_vla_config
    from mobile_vla.train.vla import train_vla

    kind = kind_named(options.policy)
    config = read_vla_config(kind, options.config, options.overrides)
    judge = None
    if config.judge_scenes:
        from mobile_vla.evaluate.judging import closed_loop_judge

        judge = closed_loop_judge(config.judge_scenes)
    from mobile_vla.train.spread import Spread
    from mobile_vla.train.vla import is_block

    spread = Spread.from_environment(config.sharding, is_block)  # type: ignore[arg-type]
    if spread is None and config.sharding == "fsdp2":
        raise ConfigError("sharding=fsdp2 shares a network among processes, and this is one: start it with torchrun")
    with spread or contextlib.nullcontext():
        final = train_vla(kind, config, options.run_dir, options.data, options.init_from, judge, spread, options.ray)
    return final if spread is None or spread.is_first else None
