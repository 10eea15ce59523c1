"""What can be known of a damage, from what the file formats store.

A torch zip and our own formats prove every byte. In the others, damage that changes a file's length or the members of a
set shows; damage in place shows where the libraries that own the format refuse the file. Some damage no reader could
see: another checkpoint's shard, sound in itself, in a set that nothing ties together.
"""

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from damage_pristine import Pristine
from damage_structure import Kind


def means_the_same(pristine: Pristine, contents: Mapping[str, bytes]) -> bool:
    """Nothing changed, but for spaces and line ends between the words of a JSON file."""

    def meaning(file: str, data: bytes) -> object:
        if pristine.kinds.get(file) in (Kind.MANIFEST, Kind.INDEX, Kind.CONFIG):
            return _json(data) or data
        return data

    return {file: meaning(file, data) for file, data in contents.items()} == {
        file: meaning(file, data) for file, data in pristine.files.items()
    }


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def knowable(pristine: Pristine, damage: str, contents: Mapping[str, bytes]) -> bool:
    if set(contents) != set(pristine.files):
        return not (damage == "missing config" and Kind.MANIFEST not in pristine.kinds.values())
    if damage in ("duplicated shard", "swapped shards"):
        return True
    return any(_shows(pristine, file, data) for file, data in contents.items() if data != pristine.files[file])


def _shows(pristine: Pristine, file: str, data: bytes) -> bool:
    """A reader can see that the changed content ``data`` of ``file`` is not what was written."""
    match pristine.kinds[file]:
        case Kind.ZIP | Kind.SELF_PROVING if data == pristine.sibling[file]:
            return Kind.MANIFEST in pristine.kinds.values()
        case Kind.ZIP | Kind.SELF_PROVING | Kind.MANIFEST | Kind.PROVEN_BY_MANIFEST:
            return True
        case Kind.CONFIG:
            return not isinstance(_json(data), dict)
        case Kind.INDEX:
            return not _index_holds(_json(pristine.files[file]), _json(data))
        case Kind.SAFETENSORS:
            return len(data) != len(pristine.files[file]) or not _safetensors_opens(pristine, file, data)
        case Kind.LEGACY:
            return len(data) != len(pristine.files[file]) or not _torch_opens(data)


def _index_holds(before: Any, after: Any) -> bool:
    """All that an index must say is as it was; the total size may be missing."""
    try:
        sizes = {before["metadata"]["total_size"], after.get("metadata", {}).get("total_size")} - {None}
        return after["weight_map"] == before["weight_map"] and len(sizes) == 1
    except (TypeError, KeyError, AttributeError):
        return False


def _safetensors_opens(pristine: Pristine, file: str, data: bytes) -> bool:
    try:
        names = set(safetensors.torch.load(data))
    except Exception:  # whatever the library says, it refuses the file
        return False
    in_a_set = Kind.INDEX in pristine.kinds.values()
    return not in_a_set or names == {truth.name for truth in pristine.tensors if truth.file == file}


def _torch_opens(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # as above
        return False
    return True
