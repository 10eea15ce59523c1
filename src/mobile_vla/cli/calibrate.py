"""``mobile-vla calibrate``: drive a known way, measure it with a tape, and get the settings that explain it."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobile_vla.cli.shared import Commands, add_json, print_json

NAMES = ("x", "x_fast", "yaw")
"""Of the runs there are; which of them a base needs, it says itself."""

PERIOD_S = 0.05
LONGEST_RUN_S = 30.0


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser("calibrate", help="find the wheel settings of a base with a tape measure")
    parser.add_argument("--robot", type=Path, required=True, metavar="FILE", help="robot file with the base")
    parser.add_argument(
        "--run", choices=NAMES, dest="only", help="drive this one run, ask nothing, and say what was sent"
    )
    for name in NAMES:
        unit = "degrees, left positive" if name == "yaw" else "m"
        parser.add_argument(
            f"--measured-{name.replace('_', '-')}",
            type=float,
            metavar="NUMBER",
            help=f"what the run {name} came to ({unit}); then it is not driven again",
        )
    parser.add_argument("--write", action="store_true", help="write the settings into the robot file")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Drive what was not measured yet, ask for it, and print the settings; 0 when there are some."""
    from mobile_vla.core import ConfigError, MonotonicClock
    from mobile_vla.robot.bases.calibration import Calibratable, Driven
    from mobile_vla.robot.bases.robot_file import base_section
    from mobile_vla.robot.registry import base_kinds, base_settings

    text = _read(options.robot)
    kind, values = base_section(text, str(options.robot))
    unknown = getattr(base_kinds().get(kind), "UNCALIBRATED", {})
    settings = base_settings(kind, {**unknown, **values})
    if not isinstance(settings, Calibratable):
        raise ConfigError(f"a base of the kind {kind} has nothing that could be calibrated here")
    runs = {each.name: each for each in settings.runs()}
    clock = MonotonicClock()
    if options.only is not None:
        if options.only not in runs:
            raise ConfigError(f"a base of the kind {kind} has no run {options.only}; its runs are {', '.join(runs)}")
        chosen = runs[options.only]
        print(f"{chosen.name}: {chosen.what}", file=sys.stderr)
        driven = _drive(settings.build(clock), chosen, clock)
        _print_driven(chosen.name, *driven, as_json=options.json)
        return 0
    measured = {}
    for name, each in runs.items():
        given = getattr(options, f"measured_{name}")
        if given is not None:
            measured[name] = Driven(settings.really(each.twist), each.duration_s, given)
            continue
        _ask(f"{name}: the base will {each.what}. Clear the way and press Enter (Ctrl-C ends)")
        sent, seconds = _drive(settings.build(clock), each, clock)
        measured[name] = Driven(sent, seconds, _number(f"measured, in {each.unit}"))
    found = settings.calibrated(measured)
    _print_found(found, {name: values.get(name) for name in found}, options.json)
    if options.write:
        _write(options.robot, text, found)
    return 0


def _read(path: Path) -> str:
    from mobile_vla.core import ConfigError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the robot file {path}: {error}") from error


def _drive(base: Any, each: Any, clock: Any) -> tuple[Any, float]:
    """What was sent, and for how long. The base is stopped and closed whatever happens."""
    from mobile_vla.core import NS_PER_S

    base.open()
    try:
        began_ns = clock.now_ns()
        end_ns = began_ns + round(min(each.duration_s, LONGEST_RUN_S) * NS_PER_S)
        next_ns = began_ns
        while next_ns < end_ns:
            sent = base.send(each.twist)
            next_ns += round(PERIOD_S * NS_PER_S)
            clock.sleep_until(min(next_ns, end_ns))
        base.stop()
        return sent, (clock.now_ns() - began_ns) / NS_PER_S
    finally:
        base.stop()
        base.close()


def _ask(question: str) -> str:
    """An answer from stdin; ConfigError where nobody answers."""
    from mobile_vla.core import ConfigError

    print(question, file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise ConfigError("nobody answers: give what was measured by --measured-... or run it in a terminal")
    return answer.strip()


def _number(question: str) -> float:
    from mobile_vla.core import ConfigError

    for _ in range(5):
        answer = _ask(question)
        try:
            return float(answer.replace(",", "."))
        except ValueError:
            print(f"{answer!r} is no number", file=sys.stderr)
    raise ConfigError("no number was given: measure the run, then give it by --measured-...")


def _print_driven(name: str, sent: Any, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json({"run": name, "seconds": seconds, "sent": {"vx": sent.vx, "vy": sent.vy, "wz": sent.wz}})
        return
    print(f"sent {sent.vx:.4f} m/s, {sent.vy:.4f} m/s, {sent.wz:.4f} rad/s for {seconds:.2f} s")
    print(f"measure it, and give it to the next call as --measured-{name.replace('_', '-')}")


def _print_found(found: Mapping[str, float], before: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"settings": dict(found), "before": dict(before)})
        return
    print("base:")
    for name, value in found.items():
        print(f"  {name}: {value}  # was {'not set' if before[name] is None else before[name]}")


def _write(path: Path, text: str, found: Mapping[str, float]) -> None:
    from mobile_vla.checkpoint.atomic import replacing
    from mobile_vla.robot.bases.robot_file import with_settings

    changed = with_settings(text, found, str(path))
    with replacing(path.resolve()) as file:
        file.write(changed.encode())
    print(f"written into {path}", file=sys.stderr)
