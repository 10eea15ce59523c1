"""Any policy from its folder: a checkpoint, or an engine made from one."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mobile_vla.core import ActionContract, ConfigError, Policy
from mobile_vla.engine.folder import is_engine, open_engine
from mobile_vla.policy import weights


def load_policy(
    folder: Path = weights.SHIPPED,
    contract: ActionContract | None = None,
    allow_missing: Collection[str] = (),
    allow_unproven: bool = False,
) -> Policy:
    """As ``policy.weights.load_policy``, which it is for a checkpoint; as ``folder.open_engine`` for an engine."""
    if not is_engine(folder):
        return weights.load_policy(folder, contract, allow_missing, allow_unproven)
    if allow_missing or allow_unproven:
        raise ConfigError(f"{folder} is an engine, which is always made from all weights: leave --allow-... out")
    policy = open_engine(folder)
    if contract is not None:
        ours = replace(contract, horizon=policy.contract.horizon)
        ours.require_same(policy.contract, "this robot", str(folder))
    return policy
