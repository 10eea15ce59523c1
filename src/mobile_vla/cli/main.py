"""The entry of ``mobile-vla``: finds the command, and turns errors into one sentence and an exit code."""

import argparse
import sys
from collections.abc import Sequence

from mobile_vla import __version__
from mobile_vla.cli import (
    calibrate,
    checkpoint,
    data,
    doctor,
    drive,
    evaluate,
    node,
    operate,
    record,
    replay,
    scene,
    teleop,
    train,
    up,
)
from mobile_vla.cli.extras import missing_extra
from mobile_vla.cli.shared import RUNS
from mobile_vla.core import DamagedCheckpointError, MobileVLAError

SUCCESS, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; the drive or check failed; an error that the sentence on stderr explains; Ctrl-C."""

COMMANDS = (
    drive,
    up,
    operate,
    teleop,
    record,
    replay,
    node,
    calibrate,
    doctor,
    train,
    evaluate,
    checkpoint,
    data,
    scene,
)


def parser() -> argparse.ArgumentParser:
    """All commands with their options. What a command needs is imported when it runs, so that help is instant."""
    top = argparse.ArgumentParser(
        prog="mobile-vla", description="Tell a mobile robot in words where to go; it drives there from camera pixels."
    )
    top.add_argument("--version", action="version", version=f"mobile-vla {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DamagedCheckpointError as error:
        from mobile_vla.checkpoint.advice import advice

        print("\n".join(filter(None, (f"mobile-vla: {error}", advice(error.path, [RUNS])))), file=sys.stderr)
        return WRONG_USE
    except MobileVLAError as error:
        print(f"mobile-vla: {error}", file=sys.stderr)
        return WRONG_USE
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        print(f"mobile-vla: {sentence}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("mobile-vla: stopped", file=sys.stderr)
        return INTERRUPTED
