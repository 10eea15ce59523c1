from dataclasses import replace

import pytest

from mobile_vla.cli.main import main
from mobile_vla.core import ActionContract


def untrained(folder, contract):
    import torch

    from mobile_vla.policy.compact import CompactConfig, CompactNetwork
    from mobile_vla.policy.weights import save_network

    torch.manual_seed(3)
    tiny = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)
    save_network(folder, CompactNetwork(tiny, contract), {"seed": 3})
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """A checkpoint of a small network that has learnt nothing."""
    return untrained(tmp_path_factory.mktemp("policy") / "tiny", ActionContract())


@pytest.fixture
def policy_of_another_robot(tmp_path):
    return untrained(tmp_path / "other", replace(ActionContract(), limits=(1.0, 1.0, 3.0)))


@pytest.fixture
def call(capsys):
    """Run a command line; gives its exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def refuse(call):
    """Run a command line that must be refused: exit code 2 and one sentence on stderr, which is given."""

    def run(*arguments):
        code, _, err = call(*arguments)
        assert code == 2
        assert err.startswith("mobile-vla: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run
