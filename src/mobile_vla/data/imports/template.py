"""A mapping file with every question that a source raises, its answers left blank where only a person knows them."""

from mobile_vla.core import AXES
from mobile_vla.data.imports.contents import Contents, Part, Role
from mobile_vla.data.imports.mapping import KINDS, POSITIVE, UNITLESS, UNITS, Kind

_WORDS = {
    "task": "instruction: {task: true}            # what LeRobot calls the task",
    "dataset": "instruction: {dataset: %s}",
    "attribute": "instruction: {attribute: ...}       # of the file, e.g. %s",
    "file_name": 'instruction: {file_name: {left: "...", right: "..."}}   # by a part of the name',
    "topic": "instruction: {topic: %s}           # an episode ends where it changes",
    "text": 'instruction: {text: "..."}          # one for all',
}


def template(contents: Contents) -> str:
    """YAML text; blank answers count as missing, so the import asks for each that was left out."""
    kind = KINDS[contents.kind]
    lines = [f"# how {contents.path} is to be read; what is blank has to be filled in, nothing is guessed", ""]
    lines += ["contract:", "  limits:           # three: the fastest along linear_x, linear_y (m/s), angular_z (rad/s)"]
    lines += ["  rate_hz:          # rows of an action chunk a second; frame_rate_hz or a whole multiple of it"]
    lines += ["  horizon:          # rows of an action chunk", _frame_rate(contents), ""]
    if contents.kind == "hdf5":
        lines += ["source_rate_hz:     # frames a second in the files, which hold no time", ""]
    if contents.kind == "bag":
        lines += ["stamps:             # header: capture stamps; received: when the bag received them"]
        lines += ["command_timeout_s:  # so long after the last command the base had stopped, e.g. 0.5"]
        lines += ["state_timeout_s:    # a measured velocity may be so old, e.g. 0.2; not with from_action", ""]
    else:
        lines += ["# every: 6          # take every sixth frame", ""]
    lines += ["camera:", *_places(kind.place, contents.of(Role.CAMERA), "  ")]
    lines += [f"  channel_order:    # {' or '.join(kind.orders)}", ""]
    lines += _axes("action", contents, kind)
    lines += ["# state: from_action   # where no velocity was measured: the action of the frame before"]
    lines += _axes("state", contents, kind)
    lines += ["# one of these says what the robot was asked:"]
    lines += [f"# {_words(each, contents)}" for each in kind.instructions]
    lines += [
        "instruction:",
        "",
        "# outside: clip       # bring actions outside the limits within them, and count them",
    ]
    lines += ["# chunk: hold         # or none; exact, the default, needs a source rate divisible by rate_hz"]
    lines += ["# extras: {driver: operator, scenario: lab}   # noted beside every episode"]
    return "\n".join(lines) + "\n"


def _frame_rate(contents: Contents) -> str:
    rate = f"{contents.rate_hz:g} in the source" if contents.rate_hz else "frames a second in our data set"
    return f"  frame_rate_hz:    # {rate}"


def _places(key: str, parts: list[Part], indent: str) -> list[str]:
    """The key, filled in where there is no choice, and what can be chosen."""
    if len(parts) == 1:
        return [f"{indent}{key}: {parts[0].name}   # {parts[0].what}"]
    return [f"{indent}{key}:", *(f"{indent}  # {part}" for part in parts)]


def _axes(section: str, contents: Contents, kind: Kind) -> list[str]:
    lines = [f"{section}:"]
    lines += [f"  # {part}" for part in contents.of(Role.NUMBERS)]
    element = kind.elements[0]
    for axis in AXES:
        units = " or ".join((*UNITS[axis], f"{UNITLESS} with scale: ..."))
        lines.append(f"  {axis}: {{{kind.place}: , {element}: , unit: , positive: }}   # {units}; ")
        lines[-1] += f"{' or '.join(POSITIVE[axis])}; or {axis}: zero"
    return [*lines, ""]


def _words(origin: str, contents: Contents) -> str:
    line = _WORDS[origin]
    if "%s" not in line:
        return line
    known = list(contents.attributes) if origin == "attribute" else [part.name for part in contents.of(Role.TEXT)]
    return line % (", ".join(known) or "...")
