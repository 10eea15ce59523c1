"""The robot's own base: can it be opened, and does it answer? Nothing is asked to move."""

from mobile_vla.doctor.check import Check, Problem, State, checked, lines_in
from mobile_vla.doctor.process import Answer, ask
from mobile_vla.doctor.purpose import Purpose

LIMIT_S = 30.0
STANDING_MPS = 0.02


def try_base(purpose: Purpose) -> Answer:
    """Open it in another process and read its velocity."""
    values = {"robot": str(purpose.robot_file) if purpose.robot_file else None, "overrides": list(purpose.overrides)}
    return ask("base", values, LIMIT_S)


def judge_base(answer: Answer, kind: str) -> Check:
    """It answers, and stands."""
    values = answer.values
    if values is None:
        return Check("base", State.FAIL, f"{kind}: {answer.trouble}", lines_in(answer.trouble))
    problems = []
    if max(map(abs, values["velocity"])) > STANDING_MPS:
        problems.append(Problem(State.WARN, f"it says that it moves, at {values['velocity']}, and nobody asked it to"))
    timeout_s = values["command_timeout_s"]
    return checked("base", f"{kind} answers; it stops {timeout_s:g} s after the last command", problems)
