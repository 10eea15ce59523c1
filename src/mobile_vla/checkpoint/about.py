"""What is told about a checkpoint beside its tensors: for which model it is, when, at which step, and how good.

Read from the files that trainers leave beside it and from names; what nobody tells stays None. Nothing here is proof:
only our own manifest is hashed.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mobile_vla.checkpoint.layout import Scalar
from mobile_vla.checkpoint.manifest import Manifest, Metric, read_manifest
from mobile_vla.checkpoint.signatures import model_of
from mobile_vla.checkpoint.store import CONFIG
from mobile_vla.core import CheckpointError

SALVAGE_REPORT, EVALUATION = "salvage.json", "evaluation.json"
_LORA_CONFIG, _TRAINER_STATE, _TRAINING_STEP = "adapter_config.json", "trainer_state.json", "training_step.json"
_MAX_JSON_BYTES = 64 * 2**20
_OF_THE_FOLDER = re.compile(r"(model|(diffusion_)?pytorch_model|adapter_model|weights)[-.]")
"""Names under which trainers save the weights that the notes in their folder are about."""
_STEP_KEYS = ("global_step", "step", "steps", "iteration", "iter", "num_updates")
_LOWER = {"loss", "error", "err", "mse", "mae", "rmse", "perplexity", "ppl", "nll", "wer", "cer", "fid", "regret"}
_HIGHER = {"success", "acc", "accuracy", "score", "reward", "return", "iou", "map", "f1", "auc", "bleu", "psnr", "ssim"}


@dataclass(frozen=True, slots=True)
class About:
    """``saved_at`` is UTC, ``dated_by`` says by what. ``policy``: the kind of policy, for checkpoints of ours alone.

    ``measured``: the metric comes from driving with these weights, not from their training.
    """

    model: str | None
    policy: str | None
    saved_at: datetime
    dated_by: str
    step: int | None
    metric: Metric | None
    measured: bool
    salvaged: bool


def about_ours(folder: Path) -> About:
    """Of a checkpoint folder of mobile-vla, damaged or not."""
    try:
        manifest: Manifest | None = read_manifest(folder)
    except CheckpointError:
        manifest = None
    salvaged = (folder / SALVAGE_REPORT).exists()
    saved_at, dated_by = _modified(folder), "file time"
    if manifest is None:
        policy = _word(json_of(folder / CONFIG).get("policy"))
        return About(policy, policy, saved_at, dated_by, None, None, False, salvaged)
    if date := _date(manifest.saved_at):
        saved_at, dated_by = date, "manifest"
    measured = _evaluation(folder, manifest)
    return About(
        model=manifest.policy,
        policy=manifest.policy,
        saved_at=saved_at,
        dated_by=dated_by,
        step=manifest.step,
        metric=measured or manifest.metric,
        measured=measured is not None,
        salvaged=salvaged or not manifest.complete,
    )


def about_foreign(path: Path, metadata: Mapping[str, Scalar], names: Collection[str]) -> About:
    """Of a file, or of a folder of shards; ``names`` are those of its tensors, ``metadata`` what stands beside them."""
    steps = [_step(metadata), _step_of_name(path.name)]
    model, metric, salvaged = None, _metric_of_name(path.name), False
    if path.is_dir() or _OF_THE_FOLDER.match(path.name):
        folder = path if path.is_dir() else path.parent
        trainer = json_of(folder / _TRAINER_STATE)
        steps.append(_number(trainer.get("global_step")))
        steps.append(_number(json_of(folder.parent / "training_state" / _TRAINING_STEP).get("step")))
        steps.append(_step_of_name(folder.name))
        model = model_of_config(folder)
        metric = metric or _best_of_trainer(folder, trainer)
        salvaged = (folder / SALVAGE_REPORT).exists()
    return About(
        model=model or model_of(names),
        policy=None,
        saved_at=_modified(path),
        dated_by="file time",
        step=next((step for step in steps if step is not None), None),
        metric=metric,
        measured=False,
        salvaged=salvaged,
    )


def model_of_config(folder: Path) -> str | None:
    """For which model the configs in ``folder`` say that the weights beside them are."""
    lora = json_of(folder / _LORA_CONFIG)
    if base := _word(lora.get("base_model_name_or_path")):
        return f"{_word(lora.get('peft_type')) or 'adapter'} of {base}"
    config = json_of(folder / CONFIG)
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    for told in (config.get("type"), config.get("model_type"), config.get("_class_name"), first):
        if word := _word(told):
            return word
    return None


def json_of(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; empty where there is none that can be read, since then it tells nothing."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            return {}
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _evaluation(folder: Path, manifest: Manifest) -> Metric | None:
    """What ``evaluate`` measured of these very weights."""
    values = json_of(folder / EVALUATION)
    if values.get("weights_sha256") != manifest.identity:
        return None
    name, value, better = values.get("name"), values.get("value"), values.get("better")
    if not isinstance(name, str) or not isinstance(value, int | float) or better not in ("higher", "lower"):
        return None
    return Metric(name, float(value), better)


def _best_of_trainer(folder: Path, state: Mapping[str, Any]) -> Metric | None:
    """The best figure of a Hugging Face trainer, where this folder is the one that reached it."""
    value = state.get("best_metric")
    best = state.get("best_model_checkpoint")
    if not isinstance(value, int | float) or not isinstance(best, str) or Path(best).name != folder.name:
        return None
    log = state.get("log_history")
    for entry in log if isinstance(log, list) else []:
        for key, seen in entry.items() if isinstance(entry, dict) else ():
            if seen == value and key.startswith("eval_"):
                return _metric(key, float(value))
    return None


def _metric_of_name(name: str) -> Metric | None:
    """``val_loss`` of ``epoch=3-step=1200-val_loss=0.12.ckpt``."""
    for key, value in _pairs(name):
        if key not in ("epoch", "step") and (metric := _metric(key, value)):
            return metric
    return None


def _metric(name: str, value: float) -> Metric | None:
    """With the direction that its name tells; None where it tells none, since then it compares nothing."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if words & _LOWER:
        return Metric(name, value, "lower")
    return Metric(name, value, "higher") if words & _HIGHER else None


def _step(metadata: Mapping[str, Scalar]) -> int | None:
    return next((step for key in _STEP_KEYS if (step := _number(metadata.get(key))) is not None), None)


def _step_of_name(name: str) -> int | None:
    for key, value in _pairs(name):
        if key == "step":
            return int(value)
    match = re.search(r"(?:^|[-_.])(?:step|steps|iter|checkpoint|ckpt)[-_]?(\d{1,12})(?!\d)", name)
    return int(match[1]) if match else None


def _pairs(name: str) -> Iterator[tuple[str, float]]:
    for key, value in re.findall(r"([A-Za-z][\w.]*)=(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", name):
        yield key, float(value)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable() else None


def _date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date.astimezone(timezone.utc) if date.tzinfo else date.replace(tzinfo=timezone.utc)


def _modified(path: Path) -> datetime:
    """When the newest of its files was written; the epoch for what is not there."""
    try:
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else []
        return datetime.fromtimestamp(max(file.lstat().st_mtime for file in files or [path]), timezone.utc)
    except OSError:
        return datetime.fromtimestamp(0, timezone.utc)
