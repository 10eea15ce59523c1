"""Take out of a damaged checkpoint whatever still checks out. The original is only ever read."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mobile_vla.checkpoint import store
from mobile_vla.checkpoint.atomic import require_space, write_bytes
from mobile_vla.checkpoint.formats.kinds import identify
from mobile_vla.checkpoint.formats.safetensors_file import FileRecord
from mobile_vla.checkpoint.formats.safetensors_file import write as write_safetensors
from mobile_vla.checkpoint.formats.shards import INDEX_SUFFIX
from mobile_vla.checkpoint.layout import Format, Layout, Problem, Tensor
from mobile_vla.checkpoint.manifest import Manifest, read_manifest
from mobile_vla.checkpoint.reading import outgoing
from mobile_vla.checkpoint.survey import TRAINING_PATH, is_ours, own_file, single_file, survey
from mobile_vla.checkpoint.template import Template, named
from mobile_vla.checkpoint.verify import Check, Finding, State, Verdict, judge
from mobile_vla.core import CheckpointError

REPORT, DOUBTFUL, UNNAMED = "salvage.json", "doubtful.safetensors", "unnamed.safetensors"
PARTIAL_TRAINING = "training-partial.safetensors"


@dataclass(frozen=True)
class Rescue:
    """``recovered`` are in ``weights.safetensors`` (and ``training.safetensors``), proven or, where the format has no
    checksums, unproven; ``doubtful`` and ``unnamed`` in files of their own; ``lost`` nowhere. ``missing`` names all
    tensors that are known to have been there and are not in the weights.
    """

    verdict: Verdict
    out: Path
    recovered: tuple[Finding, ...]
    doubtful: tuple[Finding, ...]
    unnamed: tuple[Check, ...]
    lost: tuple[Finding, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    files: Mapping[str, FileRecord]


def salvage(
    path: Path, out: Path, *, template: Template | None = None, opaque: Collection[str] = (), workers: int = 2
) -> Rescue:
    """Write what is left of ``path`` into the new folder ``out``, with a report that gives the proof of each tensor.

    ``template`` gives names back to tensors whose names were lost. CheckpointError when nothing can be recovered, when
    ``out`` holds something already or lacks space; UnsafeCheckpointError for hostile files.
    """
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty: name a new folder with --out")
    layout = _survey(path, template, opaque)
    verdict = judge(layout, workers)
    groups: dict[State, list[Finding]] = {state: [] for state in State}
    for finding in verdict.findings:
        groups[finding.state].append(finding)
    recovered = (*groups[State.WHOLE], *groups[State.UNPROVEN])
    doubtful = tuple(groups[State.DOUBTFUL])
    lost = (*groups[State.DAMAGED], *groups[State.MISSING])
    unnamed = tuple(check for check in verdict.loose if check.state is State.WHOLE and "/data/" in check.run.label)
    if not recovered and not doubtful and not unnamed:
        hint = "" if template else "; a whole checkpoint of the same model may give its tensors names: --template OTHER"
        raise CheckpointError(f"nothing of {path} can be recovered: {verdict.damage}{hint}")
    gone = {name for problem in verdict.problems for name in problem.tensors}
    missing = tuple(
        sorted({each.tensor.name for each in (*lost, *doubtful)} | gone - {f.tensor.name for f in recovered})
    )
    out.mkdir(parents=True, exist_ok=True)
    require_space(out, sum(f.tensor.size + 1024 for f in (*recovered, *doubtful)) + sum(c.run.size for c in unnamed))
    files: dict[str, FileRecord] = {}
    notes = _write_recovered(verdict, out, recovered, missing, files)
    if doubtful:
        files[DOUBTFUL] = write_safetensors(out / DOUBTFUL, [outgoing(each.tensor) for each in doubtful])
    if unnamed:
        blobs = [Tensor((check.run.label,), "U8", (check.run.size,), check.run) for check in unnamed]
        files[UNNAMED] = write_safetensors(out / UNNAMED, [outgoing(blob) for blob in blobs])
    rescue = Rescue(verdict, out, recovered, doubtful, unnamed, lost, missing, notes, files)
    write_bytes(out / REPORT, json.dumps(report(rescue), indent=1, ensure_ascii=False).encode() + b"\n")
    return rescue


def report(rescue: Rescue) -> dict[str, Any]:
    """The report as plain values: what was recovered, what was not, and the proof of each."""
    verdict, files = rescue.verdict, rescue.files
    training = next((name for name in (PARTIAL_TRAINING, store.TRAINING) if name in files), store.WEIGHTS)
    places = {each.tensor.name: _file_of(each.tensor, verdict.format, training) for each in rescue.recovered}
    places |= {finding.tensor.name: DOUBTFUL for finding in rescue.doubtful}
    return {
        "source": str(verdict.path),
        "format": verdict.format,
        "salvaged_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "problems": [problem.what for problem in verdict.problems],
        "unknowable": list(verdict.unknowable),
        "notes": list(rescue.notes),
        "missing": list(rescue.missing),
        "unproven": [finding.tensor.name for finding in rescue.recovered if finding.state is State.UNPROVEN],
        "unnamed": [{"label": check.run.label, "proof": check.proof} for check in rescue.unnamed],
        "tensors": [
            {
                "name": finding.tensor.name,
                "dtype": finding.tensor.dtype,
                "shape": list(finding.tensor.shape),
                "state": finding.state,
                "proof": finding.proof,
                "in": places.get(finding.tensor.name),
            }
            for finding in verdict.findings
        ],
        "files": {name: {"bytes": record.size, "sha256": record.sha256} for name, record in files.items()},
        "metadata": dict(verdict.metadata),
    }


def _survey(path: Path, template: Template | None, opaque: Collection[str]) -> Layout:
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX):
        kind = identify(path)
        if kind.format is None and template is not None and template.placed:
            lost = Problem("its header is lost, and with it the names and places of its tensors")
            return named(Layout(path, Format.SAFETENSORS, (), problems=(lost,)), template)
        if kind.format is None:
            raise CheckpointError(f"nothing can be recovered from {path}: {kind.sentence}")
    if template is None:
        return survey(path, opaque)
    single = single_file(path) if path.is_dir() and not is_ours(path) else None
    if single is not None and template.placed:
        return replace(_survey(single, template, opaque), path=path)
    return named(survey(path, opaque), template)


def _write_recovered(
    verdict: Verdict, out: Path, recovered: Sequence[Finding], missing: tuple[str, ...], files: dict[str, FileRecord]
) -> tuple[str, ...]:
    """One of our own folders stays one that loads, marked as incomplete; of others, the tensors alone are written."""
    ours = verdict.format is Format.OURS
    weights = [each for each in recovered if not (ours and _is_training(each.tensor))]
    state = [each for each in recovered if ours and _is_training(each.tensor)]
    ready = [outgoing(each.tensor) for each in weights]
    moments = [outgoing(each.tensor, ".".join(each.tensor.path[1:])) for each in state]
    manifest, config = _config(verdict.path) if ours else (None, None)
    notes = []
    lost_state = any(name.startswith(f"{TRAINING_PATH}.") for name in missing)
    if state and (config is None or lost_state or any(each.state is not State.WHOLE for each in state)):
        files[PARTIAL_TRAINING] = write_safetensors(out / PARTIAL_TRAINING, moments)
        notes.append(
            f"what is left of the optimizer's state is in {PARTIAL_TRAINING}; training starts with a fresh one"
        )
        moments = []
    if config is None:
        if ready:
            files[store.WEIGHTS] = write_safetensors(out / store.WEIGHTS, ready)
        if ours:
            notes.append(f"{store.CONFIG} is lost: what is left can start a training (--init-from) but not drive")
        return tuple(notes)
    unproven = [each.tensor.name for each in weights if each.state is State.UNPROVEN]
    if manifest is None:
        unproven.append(store.CONFIG)
        notes.append(f"without its manifest nothing proves {store.CONFIG}: look at its contract before you drive")
    marks = store.Notes(
        step=manifest.step if manifest else None,
        missing=tuple(name for name in missing if not name.startswith(f"{TRAINING_PATH}.")),
        unproven=tuple(unproven),
    )
    store.write(out, config, ready, moments, marks)
    files.update(read_manifest(out).files)
    return tuple(notes)


def _file_of(tensor: Tensor, form: Format, training: str) -> str:
    return training if form is Format.OURS and _is_training(tensor) else store.WEIGHTS


def _is_training(tensor: Tensor) -> bool:
    return tensor.path[0] == TRAINING_PATH and len(tensor.path) > 1


def _config(folder: Path) -> tuple[Manifest | None, dict[str, Any] | None]:
    """Manifest and config of a folder of ours, as far as they are right."""
    manifest: Manifest | None
    try:
        manifest = read_manifest(folder)
        name, known = manifest.config, manifest.files[manifest.config]
    except CheckpointError:
        manifest, known = None, None
        name = (own_file(folder, store.CONFIG) or folder / store.CONFIG).name
    try:
        data = (folder / name).read_bytes()
        values = json.loads(data)
    except (OSError, ValueError):
        return manifest, None
    if known is not None and hashlib.sha256(data).hexdigest() != known.sha256:
        return manifest, None
    ours = isinstance(values, dict) and {"policy", "network", "contract", "origin"} <= set(values)
    return manifest, values if ours else None
