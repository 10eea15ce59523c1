"""Find checkpoints of any kind below folders, say what each is worth, and pick the best whole one for a policy."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from mobile_vla.checkpoint.about import about_foreign, about_ours
from mobile_vla.checkpoint.formats.kinds import identify
from mobile_vla.checkpoint.formats.shards import INDEX_SUFFIX
from mobile_vla.checkpoint.keep import START_PREFIX, STEP_PREFIX
from mobile_vla.checkpoint.layout import Format, Scalar
from mobile_vla.checkpoint.manifest import Metric
from mobile_vla.checkpoint.places import Place, places
from mobile_vla.checkpoint.survey import survey
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError, UnsafeCheckpointError

LATEST, BEST = "latest", "best"
FINAL = "final"
"""Name of the folder in which a training leaves its result."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint, or what is left of one.

    ``path`` is what verify, salvage and convert take. ``model`` says what it is for, where that can be told; ``policy``
    is the kind of policy that a folder of ours holds. ``saved_at`` is UTC; ``dated_by`` is "manifest" or "file time".
    ``measured``: ``evaluate`` drove with it and measured ``metric``; otherwise that comes from its training.
    ``damage`` is one sentence, empty where there is none; ``proof`` says what the state rests on. ``verified``: every
    byte was read. ``size_bytes`` is what the files hold, ``disk_bytes`` what they take, which is less where they have
    holes.
    """

    path: Path
    format: Format
    size_bytes: int
    disk_bytes: int
    model: str | None
    policy: str | None
    saved_at: datetime
    dated_by: str
    step: int | None
    metric: Metric | None
    measured: bool
    state: State
    damage: str
    proof: str
    salvaged: bool
    verified: bool


def find(folders: Sequence[Path], *, quick: bool = False) -> list[Found]:
    """All checkpoints below ``folders``, as they lie there; what cannot be read is among them and says so.

    Every byte is read, unless ``quick``: then the structure alone, and what shows no damage is UNPROVEN. Optimizer
    states and the like that foreign trainers leave beside a model are not listed.
    """
    return [look(place, quick=quick) for place in places(folders)]


def look(place: Place, *, quick: bool = False) -> Found:
    """What lies at one place; nothing is raised for a damaged, hostile or unreadable one."""
    seen = _see(place.path, quick) if place.files else _Seen(State.MISSING, place.remark)
    about = about_ours(place.path) if place.ours else about_foreign(place.path, seen.metadata, seen.names)
    if place.files and place.remark not in seen.damage:
        seen = replace(seen, damage=f"{place.remark}: {seen.damage}" if seen.damage else place.remark)
    sizes = [_sizes(path) for path in place.files]
    return Found(
        path=place.path,
        format=Format.OURS if place.ours else seen.format,
        size_bytes=sum(size for size, _ in sizes),
        disk_bytes=sum(taken for _, taken in sizes),
        model=about.model,
        policy=about.policy,
        saved_at=about.saved_at,
        dated_by=about.dated_by,
        step=about.step,
        metric=about.metric,
        measured=about.measured,
        state=seen.state,
        damage=seen.damage,
        proof=seen.proof,
        salvaged=about.salvaged,
        verified=seen.verified,
    )


def best(found: Iterable[Found], policy: str | Collection[str]) -> Found | None:
    """The best whole checkpoint of ours for a kind of policy, or one of several; salvaged ones do not count.

    Those come first that ``evaluate`` has driven with, by what it measured. Then what trainings have left as a result,
    before the steps that they keep to resume from: the final one before others, by the metric of its training, then
    more steps, then the later date. Metrics compare where they have the name of the most recent one of their sort.
    The first that is whole is returned; what was found in a hurry is read for it, one after the other.
    """
    candidates = _of_policy(found, policy)
    measured = _values([each for each in candidates if each.measured])
    trained = _values([each for each in candidates if not each.measured])

    def merit(each: Found) -> tuple[float, bool, bool, float, int, datetime]:
        return (
            measured.get(each.path, -math.inf),
            not _is_step(each),
            each.path.name == FINAL,
            trained.get(each.path, -math.inf),
            -1 if each.step is None else each.step,
            each.saved_at,
        )

    return _first_whole(sorted(candidates, key=merit, reverse=True))


def latest(found: Iterable[Found], policy: str | Collection[str]) -> Found | None:
    """The whole checkpoint of ours that was saved last, for a kind of policy or one of several; no salvaged one.

    The steps that a training keeps to resume from are taken only where there is nothing else.
    """
    candidates = _of_policy(found, policy)
    return _first_whole(sorted(candidates, key=lambda each: (not _is_step(each), each.saved_at), reverse=True))


def wanted(text: str, roots: Sequence[Path], policy: str | Collection[str]) -> Path:
    """The checkpoint that ``--policy`` means: "latest" or "best" below ``roots``, else the path that it is.

    A folder that is called so is meant by "./best". CheckpointError says what was looked through where none is whole.
    """
    if text not in (LATEST, BEST):
        return Path(text)
    ours = [look(place, quick=True) for place in places([root for root in roots if root.exists()]) if place.ours]
    pick = (best if text == BEST else latest)(ours, policy)
    if pick is not None:
        return pick.path
    where = " or ".join(str(root.absolute()) for root in roots)
    named = policy if isinstance(policy, str) else " or ".join(policy)
    rest = f": all {len(ours)} there are damaged, salvaged, or of another policy" if ours else ""
    raise CheckpointError(
        f"there is no whole checkpoint of the policy {named} below {where}{rest}; look at them with 'mobile-vla "
        "checkpoint find', name one with --policy PATH, or leave --policy out for the one that comes with the package"
    )


def verified(found: Found) -> Found:
    """The same after every byte was read."""
    seen = _see(found.path, quick=False)
    return replace(found, state=seen.state, damage=seen.damage, proof=seen.proof, verified=seen.verified)


@dataclass(frozen=True, slots=True)
class _Seen:
    state: State
    damage: str
    proof: str = ""
    verified: bool = False
    format: Format = Format.UNKNOWN
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    names: Collection[str] = ()


def _see(path: Path, quick: bool) -> _Seen:
    try:
        if not path.is_dir() and not path.name.endswith(INDEX_SUFFIX):
            kind = identify(path)
            if kind.format is None:
                return _Seen(State.DAMAGED, kind.sentence)
        return _structure(path) if quick else _bytes(path)
    except UnsafeCheckpointError as error:
        return _Seen(State.DOUBTFUL, _without(path, error), "it was not opened")
    except (CheckpointError, OSError) as error:
        return _Seen(State.DAMAGED, _without(path, error))


def _structure(path: Path) -> _Seen:
    layout = survey(path)
    missing = [tensor.name for tensor in layout.tensors if tensor.run is None]
    damage = layout.problems[0].what if layout.problems else ""
    if missing and not damage:
        damage = f"{len(missing)} of {len(layout.tensors)} tensors are missing, {missing[0]} first"
    return _Seen(
        state=State.DAMAGED if damage else State.UNPROVEN,
        damage=damage,
        proof="its structure was looked at; its bytes were not read",
        format=layout.format,
        metadata=layout.metadata,
        names=[tensor.name for tensor in layout.tensors],
    )


def _bytes(path: Path) -> _Seen:
    verdict = verify(path)
    doubt = next((each.proof for each in verdict.findings if each.state is State.DOUBTFUL), "")
    if verdict.state is State.WHOLE:
        proof = "every byte matches its checksum"
    elif verdict.state is State.DAMAGED:
        proof = ""
    else:
        proof = next(iter(verdict.unknowable), "no checksums are stored for its bytes")
    return _Seen(
        state=verdict.state,
        damage=verdict.damage or doubt,
        proof=proof,
        verified=True,
        format=verdict.format,
        metadata=verdict.metadata,
        names=[finding.tensor.name for finding in verdict.findings],
    )


def _of_policy(found: Iterable[Found], policy: str | Collection[str]) -> list[Found]:
    kinds = {policy} if isinstance(policy, str) else set(policy)
    return [each for each in found if each.policy in kinds and not each.salvaged]


def _is_step(found: Found) -> bool:
    return found.path.name.startswith((STEP_PREFIX, START_PREFIX))


def _values(found: Sequence[Found]) -> dict[Path, float]:
    """The metrics that have the name of the most recent one, by path; higher is better."""
    known = [(each, each.metric) for each in found if each.metric is not None and math.isfinite(each.metric.value)]
    if not known:
        return {}
    newest = max(known, key=lambda one: one[0].saved_at)[1]
    sign = 1.0 if newest.better == "higher" else -1.0
    return {each.path: sign * metric.value for each, metric in known if metric.name == newest.name}


def _first_whole(candidates: Iterable[Found]) -> Found | None:
    for each in candidates:
        if not each.verified and not each.damage:
            each = verified(each)
        if each.state is State.WHOLE:
            return each
    return None


def _without(path: Path, error: Exception) -> str:
    """What an error says, without the path that stands beside it anyway."""
    text = str(error)
    for start in (f"{path} is damaged: ", f"{path} is ", f"{path} "):
        text = text.removeprefix(start)
    return text


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes held and bytes taken on the disk, counted in blocks of 512 by every system that counts them."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
