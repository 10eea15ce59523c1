import pytest

from mobile_vla.core import ConfigError
from mobile_vla.evaluate.judging import closed_loop_judge
from mobile_vla.evaluate.plan import FIRST_TRAINED_SEED, GROUPS
from mobile_vla.policy.weights import load_policy


def test_the_shipped_policy_is_judged_alike_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    driven: list[tuple[str, int]] = []
    from mobile_vla.evaluate import judging

    real = judging.run_episode

    def noted(planned, world, driver, name):
        driven.append((planned.scenario, planned.seed))
        return real(planned, world, driver, name)

    monkeypatch.setattr(judging, "run_episode", noted)
    judge, policy = closed_loop_judge(len(GROUPS)), load_policy()
    first, again = judge(policy), judge(policy)
    assert first == again >= 0.6
    assert driven[: len(GROUPS)] == driven[len(GROUPS) :]
    assert len({scenario for scenario, _ in driven}) == len(GROUPS)
    assert all(FIRST_TRAINED_SEED - len(GROUPS) <= seed < FIRST_TRAINED_SEED for _, seed in driven)


def test_no_scenes_are_no_judgement() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        closed_loop_judge(0)
