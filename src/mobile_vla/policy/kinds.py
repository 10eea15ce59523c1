"""Which kinds of policy there are: Python entry points in the group ``mobile_vla.policies``, each naming a PolicyKind.

A laboratory adds its own by a package with such an entry point; checkpoints name their kind, and any command that takes
a checkpoint then takes its.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from mobile_vla.core import ActionContract, CheckpointError, ConfigError, Policy
from mobile_vla.robot.registry import NOT_INSTALLED, nearest

GROUP = "mobile_vla.policies"


@dataclass(frozen=True)
class PolicyKind:
    """How a kind of policy is built, saved and driven with.

    ``network`` is its class, ``config`` the frozen dataclass of what a training can choose. ``sizes`` says, in plain
    values, all that ``build`` needs to make the same network again, with weights drawn by torch's generator;
    CheckpointError where that cannot be. ``drive`` puts a network behind the ``Policy`` protocol. ``make`` is a new
    network for a training, with pretrained weights where the configuration names some. ``step`` makes the
    ``policy.step.DecisionStep`` that engines run; a kind without one drives by ``drive`` alone.
    """

    name: str
    network: type[nn.Module]
    config: type
    make: Callable[[Any, ActionContract], nn.Module]
    sizes: Callable[[Any], Mapping[str, Any]]
    build: Callable[[Mapping[str, Any], ActionContract], nn.Module]
    drive: Callable[[Any], Policy]
    step: Callable[[Any], nn.Module] | None = None


def names() -> list[str]:
    """Of all kinds that are installed, in order."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def kind_named(name: str) -> PolicyKind:
    """By name. ConfigError for an unknown one, which suggests the nearest, and for one that is not what it claims."""
    found = {entry.value: entry for entry in entry_points(group=GROUP) if entry.name == name}
    if not found:
        known = names()
        hint = nearest(name, known) if known else f"; none is known: {NOT_INSTALLED}"
        raise ConfigError(f"there is no kind of policy called {name!r}{hint}")
    if len(found) > 1:
        raise ConfigError(f"the kind of policy {name!r} is claimed by {' and '.join(found)}: uninstall one of them")
    (entry,) = found.values()
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the kind of policy {name!r} ({entry.value}) cannot be imported: {error}; install what it needs, which "
            'for the kinds of this package is pip install -e ".[vla]" in its checkout'
        ) from error
    if not isinstance(kind, PolicyKind):
        raise ConfigError(f"the kind of policy {name!r} ({entry.value}) is no PolicyKind: correct its package")
    return kind


def kind_of(network: nn.Module) -> PolicyKind:
    """The kind that a network is of; CheckpointError for a network of none."""
    name = getattr(network, "kind", None)
    if not isinstance(name, str):
        raise CheckpointError(f"a network of class {type(network).__name__} says of no kind that it is: set its kind")
    return kind_named(name)
