"""Steps a supervisor at its rate, with good inputs unless told otherwise."""

from dataclasses import replace

from mobile_vla.core import NS_PER_S, Twist
from mobile_vla.safety import Inputs, SafetyConfig, Supervisor

PERIOD_NS = NS_PER_S // 10
FORWARD = Twist(0.5, 0.0, 0.1)


class Driver:
    """``defaults`` are fields of every step's ``Inputs``; ages in ns where the name says so, None for no stamp."""

    def __init__(self, limits=None, defaults=None, **config):
        self.supervisor = Supervisor(limits, SafetyConfig(**config))
        self.now_ns = 0
        self.defaults = {"age_ns": 0, **(defaults or {})}

    def step(self, command=FORWARD, tick_ns=PERIOD_NS, **how):
        self.now_ns += tick_ns
        how = {**self.defaults, **how}
        stamps = {
            stamp: None if how.get(age) is None else self.now_ns - how[age]
            for age, stamp in (
                ("age_ns", "capture_ns"),
                ("command_age_ns", "command_ns"),
                ("feedback_age_ns", "feedback_ns"),
                ("heartbeat_age_ns", "heartbeat_ns"),
            )
        }
        clearance = how.get("clearance")
        if clearance is not None:
            clearance = replace(clearance, stamp_ns=self.now_ns - how.get("range_age_ns", 0))
        rest = {name: value for name, value in how.items() if name in Inputs.__dataclass_fields__}
        return self.supervisor.step(self.now_ns, Inputs(command, **{**rest, **stamps, "clearance": clearance}))

    def steps(self, count, *arguments, **how):
        return [self.step(*arguments, **how) for _ in range(count)]

    def run(self):
        """Until it drives at full speed."""
        return self.steps(15)[-1]
