"""The findings for people: a table, and below it the lines that repair what is wrong."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mobile_vla.doctor.check import Check, State

STYLES = {State.OK: "green", State.NOT_NEEDED: "dim", State.WARN: "yellow", State.FAIL: "bold red"}


def print_table(checks: Sequence[Check], console: Console) -> None:
    """The table, then the repairs unwrapped, so that they can be copied."""
    table = Table("check", "state", "found", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, Text(check.state.value, STYLES[check.state]), Text(check.found))
    console.print(table)
    for check in checks:
        if check.repairs:
            console.print(Text(f"\n{check.name}:", "bold"))
            for line in check.repairs:
                console.print(Text(f"  {line}"), soft_wrap=True)


def repair_script(checks: Sequence[Check]) -> str:
    """All repairs as lines of a shell script, each check's reason as a comment above them."""
    lines = []
    for check in checks:
        if check.repairs:
            reason = " ".join(check.found.split())
            lines += [f"# {check.name}: {reason}", *check.repairs]
    return "\n".join(lines)


def values(check: Check) -> dict[str, object]:
    """For JSON."""
    return {"name": check.name, "state": check.state.value, "found": check.found, "repairs": list(check.repairs)}
