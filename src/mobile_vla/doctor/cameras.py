"""Cameras: which are plugged in, may this user open them, and does the robot's own give pictures at its rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.doctor.check import Check, Problem, State, checked, lines_in
from mobile_vla.doctor.process import Answer, ask
from mobile_vla.doctor.purpose import Purpose

FIRST_FRAME_S, SECONDS, LIMIT_S = 5.0, 3.0, 40.0
"""How long the first frame is waited for, how long frames are counted, and when the whole is given up."""
SLOW, DARK = 0.8, 4.0
"""Below this share of its nominal rate a camera is slow; below this mean (of 255) its picture is black."""
VIDEO_GROUP_LINE = 'sudo usermod -aG video "$USER"'


@dataclass(frozen=True, slots=True)
class Video:
    """One /dev/video*; the second one of a USB camera gives no pictures, only what the camera says about them."""

    device: Path
    name: str
    permitted: bool
    pictures: bool = True


def look_at_cameras() -> tuple[Video, ...]:
    """What the kernel lists; nothing is opened."""
    from mobile_vla.robot.cameras.listing import list_cameras

    return tuple(Video(each.device, each.name, each.permitted, each.index == 0) for each in list_cameras())


def judge_cameras(seen: Sequence[Video], purpose: Purpose) -> Check:
    """Is the one that the robot is set to there, and open to this user?"""
    wanted = purpose.video_device
    facts = ", ".join(f"{each.device} ({each.name})" for each in seen if each.pictures) or "none on this machine"
    if wanted is None:
        return Check("cameras", State.OK if seen else State.NOT_NEEDED, facts)
    match = next((each for each in seen if each.device == wanted.resolve()), None)
    if match is None:
        problem = Problem(State.FAIL, f"{wanted} is not there: plug it in", ("ls -l /dev/v4l/by-id /dev/video*",))
        return checked("cameras", facts, [problem])
    if not match.pictures:
        line = "ls -l /dev/v4l/by-id"
        return checked("cameras", facts, [Problem(State.FAIL, f"{wanted} gives no pictures: take another", (line,))])
    if not match.permitted:
        return checked(
            "cameras",
            facts,
            [Problem(State.FAIL, f"no right to open {wanted}; log in again after this", (VIDEO_GROUP_LINE,))],
        )
    return checked("cameras", facts)


def try_camera(purpose: Purpose) -> Answer:
    """Open the robot's camera in another process and count its frames."""
    values = {
        "robot": str(purpose.robot_file) if purpose.robot_file else None,
        "overrides": list(purpose.overrides),
        "first_frame_s": FIRST_FRAME_S,
        "seconds": SECONDS,
    }
    return ask("camera", values, LIMIT_S)


def judge_camera(answer: Answer, kind: str) -> Check:
    """Does it give pictures, bright ones, and as often as it is set to?"""
    values = answer.values
    if values is None:
        return Check("camera", State.FAIL, f"{kind}: {answer.trouble}", lines_in(answer.trouble))
    if not values["frames"]:
        return Check("camera", State.FAIL, f"{kind}: it opens, and gives no frame within {FIRST_FRAME_S:g} s")
    rate, nominal = values["rate_hz"], values["nominal_hz"]
    problems = []
    if rate < SLOW * nominal:
        problems.append(Problem(State.WARN, f"it is slow: {rate:.1f} of {nominal:g} frames/s; a dark room can do that"))
    if values["brightness"] < DARK:
        problems.append(Problem(State.WARN, "its picture is black: is the lens covered?"))
    facts = f"{kind}, {values['width']}x{values['height']}, {rate:.1f} frames/s"
    return checked("camera", f"{facts}, the first after {values['first_frame_s']:.1f} s", problems)
