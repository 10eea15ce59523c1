import io
import json
import subprocess

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mobile_vla.doctor.check import Check, State
from mobile_vla.doctor.show import print_table, repair_script, values

LONG = f"export LD_LIBRARY_PATH={'/a/very/long/folder' * 12}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
CHECKS = [
    Check("Python", State.OK, "3.10.12 on aarch64"),
    Check(
        "torch", State.FAIL, "libcublas.so.12 is\nlost [bold]really[/bold]", (LONG, 'sudo usermod -aG video "$USER"')
    ),
]


def test_the_table_has_every_row_and_repairs_can_be_copied():
    page = io.StringIO()
    print_table(CHECKS, Console(file=page, width=60))
    text = page.getvalue()
    assert "3.10.12 on aarch64" in text
    assert "[bold]" in text  # what was found is shown as it is
    assert f"  {LONG}\n" in text  # however narrow the terminal


def test_the_script_is_one_that_a_shell_takes():
    script = repair_script(CHECKS)
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=20).returncode == 0
    lines = script.splitlines()
    assert lines[0].startswith("# torch: libcublas.so.12 is lost")
    assert lines[1:] == list(CHECKS[1].repairs)
    assert repair_script(CHECKS[:1]) == ""


@given(st.builds(Check, st.text(), st.sampled_from(State), st.text(), st.lists(st.text()).map(tuple)))
def test_json_keeps_all_of_it(check):
    read = json.loads(json.dumps(values(check)))
    assert Check(read["name"], State(read["state"]), read["found"], tuple(read["repairs"])) == check
