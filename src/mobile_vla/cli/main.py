"""The entry of ``mobile-vla``: finds the command, and turns errors into one sentence and an exit code."""

import argparse
import sys
from collections.abc import Sequence

from mobile_vla import __version__
from mobile_vla.cli import (
    bench,
    calibrate,
    checkpoint,
    data,
    doctor,
    drive,
    evaluate,
    export,
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

KEYS_AND_VALUES = ("overrides", "settings", "mapping")
"""Under these names a command keeps what is given as key=value."""

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
    export,
    bench,
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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """As ``parse_args``, which by itself takes no key=value after an option that stands behind the others."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    for name in KEYS_AND_VALUES:
        if isinstance(getattr(options, name, None), list) and all(_is_setting(each) for each in rest):
            getattr(options, name).extend(rest)
            return options
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _is_setting(text: str) -> bool:
    return "=" in text and not text.startswith("-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = parse(arguments)
    try:
        return int(options.run(options))
    except DamagedCheckpointError as error:
        from mobile_vla.checkpoint.advice import advice
        from mobile_vla.checkpoint.manifest import ENGINE

        is_engine = any((folder / ENGINE).exists() for folder in (error.path, error.path.parent))
        lines = (f"mobile-vla: {error}", "" if is_engine else advice(error.path, [RUNS]))
        print("\n".join(filter(None, lines)), file=sys.stderr)
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
