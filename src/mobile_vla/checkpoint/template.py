"""Names for tensors that lost theirs, taken from a whole checkpoint of the same model or from a list.

A template is believed only as a whole: one recovered piece that does not fit it, and nothing is named.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobile_vla.checkpoint.formats.safetensors_header import LENGTH_BYTES, MAX_BYTES, Header, parse
from mobile_vla.checkpoint.formats.zip_parts import PIECE, Source
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Checksum, Format, Layout, Run, Tensor
from mobile_vla.checkpoint.manifest import MANIFEST, read_manifest
from mobile_vla.checkpoint.survey import survey
from mobile_vla.core import CheckpointError

_MAX_LIST_BYTES = 64 * 2**20
_DATA, _UNKNOWN_KEY = "/data/", "?"
_SAFETENSORS = (Format.SAFETENSORS, Format.SAFETENSORS_SHARDS, Format.UNKNOWN)
_TORCH = (Format.TORCH_ZIP, Format.TORCH_SHARDS)


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor that a template knows: ``size`` bytes of storage ``key`` in the file named ``file``.

    ``key`` is None where no storage is known, ``offset`` where its bytes begin in the file, if that tells its place in
    a file of the same kind; ``start`` and ``strides`` as in ``Tensor``; ``sha256`` of its bytes, empty where not known.
    """

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    size: int
    key: str | None = None
    file: str = ""
    offset: int | None = None
    start: int = 0
    strides: tuple[int, ...] | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Template:
    """``tensors`` in the order in which a model's state lists them, or, from safetensors, in that of their bytes.

    ``source`` is what it was made from, ``placed`` whether the tensors' offsets in a safetensors file are known.
    """

    source: str
    tensors: tuple[Named, ...]
    placed: bool = False

    @classmethod
    def of_shapes(
        cls, tensors: Iterable[tuple[str, str, Sequence[int]]], source: str = "a list of shapes"
    ) -> "Template":
        """From (name, dtype, shape), in the order in which torch would save them; each has a storage of its own.

        CheckpointError for an unknown dtype, a shape that is none, or a name that stands twice.
        """
        named: list[Named] = []
        for name, dtype, shape in tensors:
            if not isinstance(name, str) or dtype not in DTYPE_BYTES:
                raise CheckpointError(f"{source} is no template: {name!r} has the unknown dtype {dtype!r}")
            if any(isinstance(extent, bool) or not isinstance(extent, int) or extent < 0 for extent in shape):
                raise CheckpointError(f"{source} is no template: {name!r} has the shape {shape!r}")
            size = math.prod(shape) * DTYPE_BYTES[dtype]
            named.append(Named((name,), dtype, tuple(shape), size, str(len(named))))
        if len({each.path for each in named}) != len(named):
            raise CheckpointError(f"{source} is no template: a name stands twice in it")
        return cls(source, tuple(named))


def template_of(layout: Layout) -> Template:
    """From a whole checkpoint of any format. CheckpointError when it is not whole, or has no tensors."""
    lost = [tensor.name for tensor in layout.tensors if tensor.run is None]
    if not layout.tensors or lost:
        what = f"{lost[0]} is missing in it" if lost else "it holds no named tensors"
        raise CheckpointError(f"{layout.path} is no template: {what}; name a whole checkpoint of the same model")
    placed = layout.format in (Format.OURS, Format.SAFETENSORS, Format.SAFETENSORS_SHARDS)
    tensors = []
    for tensor in layout.tensors:
        run = tensor.run
        assert run is not None
        checksum = run.checksum
        sha256 = checksum.value if placed and checksum is not None and checksum.algorithm == "sha256" else ""
        key = None if placed else run.label.rpartition("/")[2]
        offset = run.offset if placed else None
        tensors.append(
            Named(
                tensor.path,
                tensor.dtype,
                tensor.shape,
                run.size,
                key,
                run.file.name,
                offset,
                tensor.start,
                tensor.strides,
                sha256,
            )
        )
    if placed:
        tensors.sort(key=lambda each: (each.file, each.offset))
    return Template(str(layout.path), tuple(tensors), placed)


def read_template(path: Path) -> Template:
    """From a ``manifest.json`` of ours, a list ``{"tensors": [[name, dtype, shape], ...]}``, or a whole checkpoint.

    CheckpointError when it is none of these.
    """
    if path.name == MANIFEST:
        return _of_manifest(path)
    if path.suffix != ".json" or path.name.endswith(".index.json"):
        return template_of(survey(path))
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_LIST_BYTES))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no template: it is not valid JSON ({error})") from error
    rows = values.get("tensors") if isinstance(values, dict) else None
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        form = '{"tensors": [[name, dtype, shape], ...]}'
        raise CheckpointError(f"{path} is no template: it is neither a manifest nor {form}")
    return Template.of_shapes([(name, dtype, shape) for name, dtype, shape in rows], str(path))


def named(layout: Layout, template: Template) -> Layout:
    """``layout`` with names for torch zip files that lost all of theirs, and for what safetensors files lack.

    One that lacks nothing comes back as it is; so does a safetensors file of which other parts do not fit. A file that
    cannot be told to be anything may come as a layout of Format.UNKNOWN: it is taken for safetensors without a head.
    CheckpointError says which recovered record does not fit the template.
    """
    nameless = _nameless_records(layout)
    if nameless:
        return _name_records(layout, template, nameless)
    if layout.format in _SAFETENSORS and template.placed:
        return _place_all(layout, template)
    if not layout.tensors and layout.format in _SAFETENSORS:
        raise CheckpointError(
            f"{template.source} is no template for {layout.path}: it does not say in which order safetensors keeps the "
            "bytes; name a safetensors checkpoint of the same model"
        )
    return layout


def _of_manifest(path: Path) -> Template:
    manifest = read_manifest(path.parent)
    tensors = []
    for file, record in manifest.files.items():
        folder = ("training",) if file == manifest.training else ()
        for name, each in (record.tensors or {}).items():
            known = (*folder, name), each.dtype, each.shape, each.size
            tensors.append(Named(*known, file=file, offset=each.offset, sha256=each.sha256))
    tensors.sort(key=lambda each: (each.file, each.offset))
    return Template(str(path), tuple(tensors), placed=True)


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 3 and isinstance(row[2], list)


# torch zip files without their pickle


def _nameless_records(layout: Layout) -> dict[Path, list[Run]]:
    """Data records by file, of the files in which no tensor has a name."""
    known = {tensor.run.file for tensor in layout.tensors if tensor.run is not None}
    records: dict[Path, list[Run]] = {}
    for run in layout.runs:
        if _DATA in run.label and run.file not in known and layout.format in _TORCH:
            records.setdefault(run.file, []).append(run)
    return records


def _name_records(layout: Layout, template: Template, nameless: Mapping[Path, list[Run]]) -> Layout:
    if template.placed:
        raise CheckpointError(
            f"{template.source} is no template for {layout.path}: safetensors does not keep the order in which torch "
            "saves; name a torch checkpoint of the same model"
        )
    tensors = list(layout.tensors)
    taken = {tensor.path for tensor in tensors}
    files = {each.file for each in template.tensors}
    for file, runs in nameless.items():
        meant = [each for each in template.tensors if len(files) == 1 or each.file == file.name]
        places = _by_key(file, runs, meant, template)
        for each in meant:
            if each.path in taken:
                continue
            run = places.get(each.key or "")
            if run is None and each.size:
                note = f"{template.source} names it; its bytes were not found"
            else:
                run, note = run or Run(f"data/{each.key}", file, 0, 0, Checksum("crc32", f"{0:08x}")), _note(template)
            tensors.append(Tensor(each.path, each.dtype, each.shape, run, each.start, each.strides, note))
    return replace(layout, tensors=tuple(tensors))


def _by_key(file: Path, runs: Sequence[Run], meant: Sequence[Named], template: Template) -> dict[str, Run]:
    """The records of the file by the template's storage keys: by the same keys or, where it has none of them, by order.

    Torch before 2.0 makes keys of addresses, which tell nothing; then the sizes alone, in their order, must fit in
    exactly one way.
    """
    sizes = {each.key: each.size for each in meant if each.key is not None}
    keyed = {run.label.rpartition("/")[2]: run for run in runs}
    keyed.pop(_UNKNOWN_KEY, None)
    if keyed and not keyed.keys() & sizes.keys():
        ordered = list(sizes)
        ways = [
            first
            for first in range(len(ordered) - len(runs) + 1)
            if all(sizes[key] == run.size for key, run in zip(ordered[first:], runs, strict=False))
        ]
        if len(ways) != 1:
            raise CheckpointError(
                f"{template.source} is no template for {file}: its storages fit the {len(runs)} recovered records "
                f"in {len(ways)} ways, and must in one"
            )
        return dict(zip(ordered[ways[0] :], runs, strict=False))
    for key, run in keyed.items():
        if sizes.get(key) != run.size:
            should = f"{sizes[key]} bytes" if key in sizes else "no such record"
            raise CheckpointError(
                f"{template.source} is no template for {file}: {run.label} has {run.size} bytes, the template {should}"
            )
    return keyed


def _note(template: Template) -> str:
    return f"named by the template: {template.source}"


# safetensors files without their header, or with a damaged one


def _place_all(layout: Layout, template: Template) -> Layout:
    """Every file of the template that lies there, by the sizes in the template."""
    single = len({each.file for each in template.tensors}) == 1
    for name in dict.fromkeys(each.file for each in template.tensors):
        meant = [each for each in template.tensors if each.file == name]
        path = layout.path if layout.path.is_file() and single else _beside(layout.path) / name
        if path.is_file():
            layout = _place(layout, path, meant, template)
    return layout


def _beside(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _place(layout: Layout, path: Path, meant: Sequence[Named], template: Template) -> Layout:
    """Add the tensors of one file that the layout lacks, as far as those that it has stand where the template says."""
    with Source(path) as source:
        header = _header(source)
        # what a damaged header says of places counts only where a checksum bears it out
        known = {
            tensor.path: tensor
            for tensor in layout.tensors
            if tensor.run is not None and tensor.run.file == path and (not header.damage or tensor.run.checksum)
        }
        lacking = [each for each in meant if each.path not in known]
        base = _base(source, header, known, meant)
        if base is None or not lacking:
            return layout
        placed: dict[tuple[str, ...], Tensor] = {}
        for each in lacking:
            assert each.offset is not None
            offset, name = base + each.offset, ".".join(each.path)
            if 0 <= offset <= source.size - each.size:
                note = f"{_note(template)}, and placed by the sizes in it"
                placed[each.path] = Tensor(
                    each.path, each.dtype, each.shape, Run(name, path, offset, each.size), note=note
                )
            else:
                note = f"{template.source} names it; its bytes are not in the file"
                placed[each.path] = Tensor(each.path, each.dtype, each.shape, None, note=note)
        placed = _proven(source, placed, meant)
    # what stands at the same bytes under another name, or under its own without bytes, was a damaged entry
    taken = {(t.run.file, t.run.offset, t.run.size) for t in placed.values() if t.run is not None and t.run.size}
    kept = [
        tensor
        for tensor in layout.tensors
        if tensor.path not in placed
        and (tensor.run is None or (tensor.run.file, tensor.run.offset, tensor.run.size) not in taken)
    ]
    left = {tensor.run for tensor in kept} | {run for run in layout.runs if run not in {t.run for t in layout.tensors}}
    runs = [run for run in layout.runs if run in left] + [t.run for t in placed.values() if t.run is not None]
    return replace(layout, tensors=(*kept, *placed.values()), runs=tuple(runs))


def _header(source: Source) -> Header:
    length = int.from_bytes(source.read(0, LENGTH_BYTES), "little")
    return parse(source.read(0, LENGTH_BYTES + min(length, MAX_BYTES)), source.size)


def _is_cut_in_header(source: Source) -> bool:
    head = source.read(0, LENGTH_BYTES + 1)
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return length <= MAX_BYTES and head[LENGTH_BYTES:] in (b"", b"{") and LENGTH_BYTES + length > source.size


def _base(
    source: Source, header: Header, known: Mapping[tuple[str, ...], Tensor], meant: Sequence[Named]
) -> int | None:
    """What to add to the template's offsets; None where the file does not fit the template.

    By the tensors that are known; else by the end of a header that is whole; else by the end of the file, for that is
    where it was if only the head is lost or damaged. A header that names other tensors alone is another file's; one
    that goes on beyond the end of the file has no bytes behind it.
    """
    bases = set()
    for each in meant:
        tensor = known.get(each.path)
        if tensor is not None and tensor.run is not None and each.size:
            if (tensor.dtype, tensor.shape) != (each.dtype, each.shape):
                return None
            bases.add(tensor.run.offset - (each.offset or 0))
    if bases:
        return bases.pop() if len(bases) == 1 else None
    if header.starts and not header.damage:
        return None if header.entries else header.starts[0] - min(each.offset or 0 for each in meant)
    if _is_cut_in_header(source):
        return None
    return source.size - max((each.offset or 0) + each.size for each in meant)


def _proven(
    source: Source, placed: Mapping[tuple[str, ...], Tensor], meant: Sequence[Named]
) -> dict[tuple[str, ...], Tensor]:
    """With the template's checksums, if it is of this very file: if most of the bytes hash to what it says."""
    digests = {each.path: each.sha256 for each in meant if each.sha256}
    runs = {path: tensor.run for path, tensor in placed.items() if tensor.run is not None}
    same = sum(run.size for path, run in runs.items() if path in digests and _sha256(source, run) == digests[path])
    if 2 * same <= sum(run.size for run in runs.values()):
        return dict(placed)
    return {
        path: replace(tensor, run=replace(tensor.run, checksum=Checksum("sha256", digests[path])))
        if tensor.run is not None and path in digests
        else tensor
        for path, tensor in placed.items()
    }


def _sha256(source: Source, run: Run) -> str:
    digest, at, left = hashlib.sha256(), run.offset, run.size
    while left and (piece := source.read(at, min(PIECE, left))):
        digest.update(piece)
        at, left = at + len(piece), left - len(piece)
    return digest.hexdigest()
