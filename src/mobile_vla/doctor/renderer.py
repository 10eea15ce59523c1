"""What draws the simulated world: OpenGL, or rays where it is missing."""

from mobile_vla.doctor.check import Check, Problem, State, checked
from mobile_vla.doctor.machine import SIMULATOR, Python
from mobile_vla.doctor.process import Answer, ask
from mobile_vla.doctor.purpose import Purpose

LIMIT_S = 60.0
GL_LINE = "sudo apt-get install -y --no-install-recommends libegl1 libgl1"


def look_at_renderer(python: Python, purpose: Purpose) -> Answer | None:
    """Draws a picture in another process; None where nothing simulated is driven or the simulator is missing."""
    if not purpose.needs_simulator or python.missing & set(SIMULATOR):
        return None
    return ask("renderer", {}, LIMIT_S)


def judge_renderer(answer: Answer | None, purpose: Purpose) -> Check:
    """Drawing by rays is slower and does as well."""
    if answer is None:
        why = "the simulator is not installed" if purpose.needs_simulator else "nothing simulated is driven"
        return Check("OpenGL", State.NOT_NEEDED, why)
    values = answer.values
    if values is None:
        line = "MOBILE_VLA_RENDERER=rays mobile-vla scene hidden"
        return checked("OpenGL", "", [Problem(State.FAIL, f"no picture: {answer.trouble}", (GL_LINE, line))])
    facts = f"drawn by {values['renderer']}"
    if not values["sees"]:
        line = "MOBILE_VLA_RENDERER=rays mobile-vla scene hidden"
        return checked("OpenGL", facts, [Problem(State.FAIL, "the picture is empty", (line,))])
    if problem := values["egl_problem"]:
        lines = (GL_LINE,) if "missing" in problem else ()
        return checked("OpenGL", facts, [Problem(State.WARN, problem.partition(": apt-get")[0], lines)])
    return checked("OpenGL", facts)
