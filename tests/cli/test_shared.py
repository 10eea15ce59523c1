import argparse

import pytest

from mobile_vla.cli.shared import add_policy, policy_folder
from mobile_vla.core import ActionContract, CheckpointError
from mobile_vla.policy.weights import SHIPPED

from .conftest import untrained


@pytest.fixture
def choose(tmp_path, monkeypatch, capsys):
    """What ``--policy`` means in a folder with a run in it; gives the folder and what is said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        parser = argparse.ArgumentParser()
        add_policy(parser)
        folder = policy_folder(parser.parse_args(arguments))
        said = capsys.readouterr()
        assert said.out == ""
        return folder, said.err

    return run


def test_by_default_it_is_the_shipped_one(choose):
    assert choose() == (SHIPPED, "")


def test_a_path_is_taken_as_it_is(choose, tmp_path):
    assert choose("--policy", str(tmp_path / "any")) == (tmp_path / "any", "")


@pytest.mark.parametrize("word", ["latest", "best"])
def test_one_that_is_chosen_below_runs_is_named_on_stderr(choose, tmp_path, word):
    untrained(tmp_path / "runs" / "first" / "final", ActionContract())
    folder, said = choose("--policy", word)
    assert folder.resolve() == tmp_path / "runs" / "first" / "final"
    assert said == f"the {word} whole checkpoint: {folder}\n"


def test_where_there_is_none_it_says_so(choose, tmp_path):
    with pytest.raises(CheckpointError, match=f"no whole checkpoint of the policy .*compact.* below {tmp_path}/runs"):
        choose("--policy", "best")


def test_drive_and_evaluate_take_it(refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (("drive", "--say", "go to the red cup"), ("evaluate",)):
        assert "no whole checkpoint of the policy clip_lstm or compact" in refuse(*command, "--policy", "latest")
