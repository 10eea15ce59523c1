import subprocess
import sys

import pytest

from mobile_vla import __version__
from mobile_vla.cli import main as cli
from mobile_vla.core import ConfigError

COMMANDS = [
    ("drive", "--say", "stop"),
    ("train", "somewhere"),
    ("evaluate",),
    ("data", "validate", "somewhere"),
    ("data", "stats", "somewhere"),
    ("scene", "hidden"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_json(command):
    assert cli.parser().parse_args([*command, "--json"]).json is True
    assert cli.parser().parse_args(command).json is False


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom mobile_vla.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'mujoco', 'pyarrow', 'matplotlib', 'yaml', 'av') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command[0] in answer.stdout for command in COMMANDS)
    assert answer.stdout.endswith("[]\n")


def test_it_runs_as_a_module():
    answer = subprocess.run(
        [sys.executable, "-m", "mobile_vla", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == f"mobile-vla {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["drive"], ["drive", "--say", "stop", "--pace", "-1"]])
def test_wrong_use_is_explained(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "usage: mobile-vla" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(ConfigError("this is wrong: do that"), 2, "this is wrong: do that"), (KeyboardInterrupt(), 130, "stopped")],
)
def test_errors_become_a_sentence_and_an_exit_code(error, code, said, monkeypatch, call):
    def fail(options):
        raise error

    monkeypatch.setattr(cli.scene, "run", fail)
    assert call("scene", "hidden") == (code, "", f"mobile-vla: {said}\n")


def test_other_errors_are_not_hidden(monkeypatch):
    def fail(options):
        raise ZeroDivisionError

    monkeypatch.setattr(cli.scene, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["scene", "hidden"])
