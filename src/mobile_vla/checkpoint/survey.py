"""From a path to a layout, whatever its format: a file, a sharded set, or a checkpoint folder of ours."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from mobile_vla.checkpoint.formats import safetensors_file, shards, torch_legacy, torch_zip
from mobile_vla.checkpoint.formats.kinds import identify, unfinished
from mobile_vla.checkpoint.formats.safetensors_file import FileRecord
from mobile_vla.checkpoint.layout import Checksum, Format, Layout, Problem, Run, Scalar, Tensor
from mobile_vla.checkpoint.manifest import ENGINE, MANIFEST, Manifest, engine_instead, read_manifest
from mobile_vla.checkpoint.store import CONFIG, TRAINING, WEIGHTS
from mobile_vla.core import CheckpointError, DamagedCheckpointError

_SINGLE = ("model.safetensors", "adapter_model.safetensors", WEIGHTS, "pytorch_model.bin", "model.pth", "model.pt")
TRAINING_PATH = "training"
"""First part of the paths of the optimizer's tensors in a folder of ours."""

_MOST_WORDS = 16 * 2**20


def survey(path: Path, opaque: Collection[str] = ()) -> Layout:
    """Which tensors ``path`` holds and where, as far as its damage lets one see.

    ``opaque`` names classes ("module.Name", "module.*") of a foreign pickle that may stay unknown. CheckpointError
    when it is not there or no checkpoint at all; UnsafeCheckpointError for hostile files.
    """
    if path.is_dir():
        return _folder(path, opaque)
    if path.name.endswith(".index.json"):
        return shards.survey(path, lambda file: survey(file, opaque))
    layout = _file(path, opaque)
    if doing := unfinished(path):
        return replace(layout, problems=(*layout.problems, Problem(f"it is {doing}", harmless=True)))
    return layout


def _file(path: Path, opaque: Collection[str]) -> Layout:
    kind = identify(path)
    match kind.format:
        case Format.SAFETENSORS:
            return safetensors_file.survey(path)
        case Format.TORCH_ZIP:
            return torch_zip.survey(path, opaque)
        case Format.TORCH_LEGACY:
            return torch_legacy.survey(path, opaque)
    raise CheckpointError(f"{path} is no checkpoint: {kind.sentence}")


def is_ours(folder: Path) -> bool:
    """A checkpoint folder of mobile-vla, whole or not."""
    return own_file(folder, WEIGHTS) is not None and (
        own_file(folder, CONFIG) is not None or (folder / MANIFEST).exists()
    )


def own_file(folder: Path, name: str) -> Path | None:
    """The file of ours that goes by ``name``; a save over another one counts them, and the latest is taken."""
    stem, dot, suffix = name.partition(".")
    counted = re.compile(re.escape(stem) + r"(-\d+)?" + re.escape(dot + suffix))
    found = [path for path in folder.glob(f"{stem}*{dot}{suffix}") if counted.fullmatch(path.name)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def single_file(folder: Path) -> Path | None:
    """The weights of a folder that is not ours and holds them in one file."""
    return next((folder / name for name in _SINGLE if (folder / name).exists()), None)


def _folder(folder: Path, opaque: Collection[str]) -> Layout:
    if (folder / MANIFEST).exists() or is_ours(folder):
        return _ours(folder)
    if any(folder.glob(f"*{shards.INDEX_SUFFIX}")) or shards.numbered_sets(folder):
        layout = shards.survey(folder, lambda file: survey(file, opaque))
    else:
        single = single_file(folder)
        if single is None:
            if (folder / ENGINE).exists():
                raise CheckpointError(engine_instead(folder))
            raise CheckpointError(f"{folder} holds no checkpoint: look below it: mobile-vla checkpoint find {folder}")
        layout = replace(survey(single, opaque), path=folder)
    return replace(layout, problems=(*layout.problems, *_broken_words(folder)))


def _broken_words(folder: Path) -> Iterator[Problem]:
    """What lies beside foreign weights has no checksum either, but has to be readable."""
    for path in sorted(folder.glob("*config.json")):
        try:
            with path.open("rb") as file:
                json.loads(file.read(_MOST_WORDS))
        except (OSError, ValueError, RecursionError) as error:
            yield Problem(f"{path.name} beside the weights is damaged: {error}", harmless=True)


def _ours(folder: Path) -> Layout:
    try:
        return _by_manifest(folder, read_manifest(folder))
    except DamagedCheckpointError as error:
        damage = error.damage
    except CheckpointError as error:
        missing = f"{MANIFEST} is missing: a save that did not end, or a copy that lost it"
        damage = str(error) if (folder / MANIFEST).exists() else missing
    problems = [Problem(damage, harmless=True)]
    tensors: list[Tensor] = []
    runs: list[Run] = []
    unknowable: tuple[str, ...] = ()
    for name, inside in ((WEIGHTS, ()), (TRAINING, (TRAINING_PATH,))):
        file = own_file(folder, name)
        if file is not None:
            part = safetensors_file.survey(file)
            tensors += [replace(tensor, path=(*inside, *tensor.path)) for tensor in part.tensors]
            runs += part.runs
            problems += [replace(each, what=f"{name}: {each.what}") for each in part.problems]
            unknowable += part.unknowable
    config = own_file(folder, CONFIG)
    if config is not None:
        runs.append(Run(CONFIG, config, 0, config.stat().st_size))
    else:
        problems.append(Problem(f"{CONFIG} is missing", harmless=True))
    return Layout(folder, Format.OURS, tuple(tensors), tuple(runs), tuple(problems), unknowable)


def _by_manifest(folder: Path, manifest: Manifest) -> Layout:
    tensors: list[Tensor] = []
    runs: list[Run] = []
    problems: list[Problem] = []
    if not any(_is_described(folder / name, known) for name, known in manifest.files.items()):
        raise DamagedCheckpointError(folder, f"{MANIFEST} is of another checkpoint: it describes none of these files")
    for name, known in manifest.files.items():
        path = folder / name
        if not path.exists():
            lost = [Tensor((each,), one.dtype, one.shape, None) for each, one in (known.tensors or {}).items()]
            part = Layout(path, Format.SAFETENSORS, tuple(lost), problems=(Problem(f"{name} is missing"),))
        elif known.tensors is None:
            size = path.stat().st_size
            part = Layout(path, Format.UNKNOWN, (), (Run(name, path, 0, size, Checksum("sha256", known.sha256)),))
        else:
            part = safetensors_file.survey(path, known)
        inside = (TRAINING_PATH,) if name == manifest.training else ()
        tensors += [replace(tensor, path=(*inside, *tensor.path)) for tensor in part.tensors]
        runs += part.runs
        problems += [replace(each, what=f"{name}: {each.what}") for each in part.problems]
    metadata: dict[str, Scalar] = {
        "policy": manifest.policy,
        "step": manifest.step,
        "saved_at": manifest.saved_at,
        "weights_sha256": manifest.identity,
    }
    return Layout(folder, Format.OURS, tuple(tensors), tuple(runs), tuple(problems), metadata=metadata)


def _is_described(path: Path, known: FileRecord) -> bool:
    """By its header, or, where it has none, by its bytes: as quick as can be."""
    try:
        with path.open("rb") as file:
            data = file.read(known.header_size or known.size)
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == (known.header_sha256 or known.sha256)
