"""What to do when the checkpoint that was asked for is damaged or missing: the next best, the rescue, the training."""

import os
import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mobile_vla.checkpoint.about import about_ours
from mobile_vla.checkpoint.find import Found, best, look, verified
from mobile_vla.checkpoint.formats.kinds import identify
from mobile_vla.checkpoint.formats.shards import INDEX_SUFFIX
from mobile_vla.checkpoint.places import Place, places
from mobile_vla.checkpoint.survey import is_ours
from mobile_vla.checkpoint.verify import State
from mobile_vla.core import MobileVLAError

_MOST_FOLDERS, _MOST_PLACES = 500, 200
"""Folders and checkpoints looked at around the damaged one: an error message must not search a whole disk."""
_MOST_LEVELS = 4
_MOST_READ = 3
"""Foreign candidates of which every byte is read: some have many gigabytes."""


def advice(path: Path, roots: Sequence[Path]) -> str:
    """Lines for a person whose checkpoint ``path`` is damaged or missing, each a step to take; never raises.

    The next best one is looked for beside ``path``, then in the run that it belongs to, then below ``roots``.
    """
    steps = []
    try:
        if other := _next_best(path, roots):
            proof = "whole" if other.state is State.WHOLE else "nothing is wrong with it, and nothing proves it"
            told = ", ".join(filter(None, (other.model, f"saved {other.saved_at:%Y-%m-%d %H:%M} UTC", proof)))
            steps.append(f"take the next best one: {other.path} ({told})")
        steps += _rescue(path)
        steps += _training(path)
    except (MobileVLAError, OSError) as error:
        steps.append(f"what else there is could not be looked for: {error}")
    return "\n".join(f"  {step}" for step in steps)


def _next_best(path: Path, roots: Sequence[Path]) -> Found | None:
    run = _run_of(path)
    for ring in ([path.parent], [run] if run else [], [root for root in roots if root.exists()]):
        # itself, and what lies in it, is no other
        near = islice(places(ring, _MOST_FOLDERS), _MOST_PLACES)
        others = [one for one in near if one.files and not _is_in(one.path, path)]
        pick = _best_of_foreign(path, others) if path.is_file() else _best_of_ours(path, others)
        if pick is not None:
            return pick
    return None


def _best_of_ours(path: Path, others: Sequence[Place]) -> Found | None:
    """Of the same policy; of any where that cannot be told any more."""
    policy = about_ours(path).policy
    found = [look(place, quick=True) for place in others if place.ours]
    policies = [policy] if policy else sorted({each.policy for each in found if each.policy})
    return next((pick for each in policies if (pick := best(found, each))), None)


def _best_of_foreign(path: Path, others: Sequence[Place]) -> Found | None:
    """Of the same model as far as can be told, the latest first; whole if any is, else one with nothing wrong."""
    model = look(Place(path, (path,)), quick=True).model
    if model is None:
        return None
    found = [look(place, quick=True) for place in others if not place.ours and not place.remark]
    found = [each for each in found if each.model == model and not each.damage and not each.salvaged]
    found.sort(key=lambda each: each.saved_at, reverse=True)
    read = [verified(each) for each in found[:_MOST_READ]]
    right = [each for state in (State.WHOLE, State.UNPROVEN) for each in read if each.state is state]
    return next(iter(right), None)


def _rescue(path: Path) -> Iterator[str]:
    if not path.exists():
        return
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX) and (kind := identify(path)).format is None:
        yield kind.advice
        return
    home = path.parent if os.access(path.parent, os.W_OK) else Path()
    names = (f"{path.name}-salvaged{number}" for number in ("", *range(2, 100)))
    out = next((home / name for name in names if not (home / name).exists()), home / f"{path.name}-salvaged")
    yield f"take out what is left: {_command('salvage', path, '--out', out)}"


def _training(path: Path) -> Iterator[str]:
    if run := _run_of(path):
        yield f"train it again from what the run still holds: mobile-vla train {shlex.quote(str(run))}"
    elif path.is_dir() and is_ours(path):
        yield "train it again: mobile-vla train runs/again"


def _run_of(path: Path) -> Path | None:
    """The folder of the training that ``path`` comes from, told by what trainings leave beside their checkpoints."""
    for folder in list(path.parents)[:_MOST_LEVELS]:
        if (folder / "data" / "survey").is_dir() or any(folder.glob("*.parts")):
            return folder
    return None


def _is_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _command(verb: str, *arguments: str | Path) -> str:
    return shlex.join(["mobile-vla", "checkpoint", verb, *map(str, arguments)])
