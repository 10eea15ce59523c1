"""From a torch zip file to a layout: every byte of it is somebody's, or it is said that it is nobody's."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from mobile_vla.checkpoint.formats.record_names import SMALL, labels
from mobile_vla.checkpoint.formats.torch_audit import checksums, disagreements, misplaced
from mobile_vla.checkpoint.formats.torch_pickle import TensorRef
from mobile_vla.checkpoint.formats.torch_records import DATA, PICKLE, Known
from mobile_vla.checkpoint.formats.torch_search import find_records
from mobile_vla.checkpoint.formats.zip_directory import read_directory
from mobile_vla.checkpoint.formats.zip_parts import Source
from mobile_vla.checkpoint.formats.zip_tricks import refuse_tricks
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Checksum, Format, Layout, Problem, Run, Tensor
from mobile_vla.core import CheckpointError

_UNCHECKED = "it was saved without checksums: changed bytes in it cannot be told from right ones"
_FOREIGN = "it was packed by another program than torch: times and attributes in its directory prove nothing"
_NO_BYTES = Checksum("crc32", "00000000")


def survey(path: Path, opaque: Collection[str] = ()) -> Layout:
    """Which tensors the file holds and where, whole or damaged; ``opaque`` as in ``read_torch_pickle``.

    Every run has the CRC-32 that the file stores for it, or none where that is lost; a record without a name is
    labelled "<folder>/data/?", or "<folder>/?" if it is no tensor's. CheckpointError when the file cannot be read or is
    none of torch's; UnsafeCheckpointError for a hostile pickle, and for a zip that was made to mislead.
    """
    with Source(path) as source:
        directory = read_directory(source)
        refuse_tricks(source, directory)
        known = find_records(source, directory, opaque)
        _require_weights(known)
        problems = [*_lost(known), *directory.problems, *misplaced(known)]
        counting, conflicts = checksums(known)
        problems += conflicts
        runs: list[Run] = []
        for record, label, counts in zip(known.records, labels(known.records, known.prefix), counting, strict=True):
            problems += disagreements(known, record)
            runs.append(Run(label, path, record.start, record.size, counts))
    tensors = tuple(_tensors(known, {run.label: run for run in runs if not run.label.endswith("?")}))
    metadata = known.contents.scalars if known.contents is not None else {}
    return Layout(path, Format.TORCH_ZIP, tensors, tuple(runs), tuple(problems), tuple(_unknowable(known)), metadata)


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Elements follow one another, the last axis fastest; an axis of one element may have any stride."""
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent == 0:
            return True
        if extent > 1 and stride != expected:
            return False
        expected *= extent
    return True


def described(path: tuple[str, ...], tensor: TensorRef, run: Run | None, note: str) -> Tensor:
    """A tensor of a torch pickle on the run of its storage."""
    strides = None if is_contiguous(tensor.shape, tensor.strides) else tensor.strides
    return Tensor(path, tensor.dtype, tensor.shape, run, tensor.offset * DTYPE_BYTES[tensor.dtype], strides, note)


def _require_weights(known: Known) -> None:
    path = known.source.path
    names = {record.name for record in known.records} | {entry.name for entry in known.directory.entries}
    inner = {name.partition("/")[2] for name in names if name} - {""}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise CheckpointError(
            f"{path} is a TorchScript archive: it holds code, not weights alone; where you trust it, load it with "
            "torch.jit.load and save its state_dict()"
        )
    if names - {""} and not any(name in SMALL or name.startswith(DATA) for name in inner):
        raise CheckpointError(f"{path} is a zip file, but none of torch: it holds {min(names)!r} and no {PICKLE}")
    if not names and known.source.read(0, 2) != b"PK" and known.directory.start == known.directory.tail:
        raise CheckpointError(f"{path} is no torch zip file: nothing of one is found in it")


def _lost(known: Known) -> Iterator[Problem]:
    if _is_big_endian(known):
        yield Problem("its tensors are stored in big-endian order, which is not read: save it anew as little-endian")
    if known.contents is None:
        yield Problem(
            f"names, types and shapes of its tensors are lost with {PICKLE}, because {known.pickle_damage}; another "
            "checkpoint of the same model can give them (--template)"
        )
    for name, why in known.lost.items():
        if not name.endswith(f"/{PICKLE}") and name not in known.sizes:
            yield Problem(f"{name} is lost: {why}", harmless=known.contents is not None)


def _unknowable(known: Known) -> Iterator[str]:
    if known.unchecked:
        yield _UNCHECKED
    if not known.by_torch:
        yield _FOREIGN
    if known.directory.comment_bytes:
        yield f"a comment of {known.directory.comment_bytes} bytes at its end is covered by no checksum"
    if known.contents is not None:
        yield from known.contents.skipped


def _tensors(known: Known, runs: Mapping[str, Run]) -> Iterator[Tensor]:
    if known.contents is None:
        return
    notes = {record.name: record.note for record in known.records}
    big_endian = _is_big_endian(known)
    for path, tensor in known.contents.tensors:
        name = f"{known.prefix}/{DATA}{tensor.storage.key}"
        run, note, size = runs.get(name), notes.get(name, ""), known.sizes[name]
        if run is None:
            note = f"{name} is lost: {known.lost.get(name, 'its bytes are not found')}"
        elif run.size != size:
            note = f"{name} has {run.size} bytes where the pickle says {size}"
            run = None
        elif big_endian:
            run, note = None, "it is stored in big-endian order"
        if run is None and 0 in tensor.shape:
            run, note = Run(name, known.source.path, 0, 0, _NO_BYTES), ""
        yield described(path, tensor, run, note)


def _is_big_endian(known: Known) -> bool:
    """By the length of the record that says so: that holds even where its content is damaged."""
    sizes = [record.size for record in known.records if record.name == f"{known.prefix}/byteorder"]
    return sizes == [len("big")]
