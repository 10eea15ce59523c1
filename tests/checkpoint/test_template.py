import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mobile_vla.checkpoint.formats import safetensors_file, torch_zip
from mobile_vla.checkpoint.layout import Checksum, Format, Layout
from mobile_vla.checkpoint.survey import survey
from mobile_vla.checkpoint.template import Template, named, read_template, template_of
from mobile_vla.core import CheckpointError

from .formats.test_torch_zip import fits, leaves, raw, same, state, tensor_of
from .formats.zips import Part, write_zip


@pytest.fixture
def sibling(tmp_path):
    """The same model with other values."""
    torch.save(state(seed=7), tmp_path / "sibling.pt")
    return template_of(torch_zip.survey(tmp_path / "sibling.pt"))


@pytest.fixture
def headless(tmp_path):
    """A torch file without its pickle; the directory is there."""
    path = tmp_path / "model.pt"
    torch.save(state(), path)
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"model/byteorder") + 100 :])
    return path


def values(layout):
    return {tensor.path: tensor_of(tensor) for tensor in layout.tensors if tensor.run is not None}


def test_a_sibling_names_every_tensor_of_a_file_without_its_head(headless, sibling):
    nameless = torch_zip.survey(headless)
    assert nameless.tensors == ()
    layout = named(nameless, sibling)
    truth = dict(leaves(state()))
    assert {path: raw(value) for path, value in values(layout).items()} == {path: raw(t) for path, t in truth.items()}
    assert all(same(value, truth[path]) for path, value in values(layout).items())
    assert all(fits(tensor.run) for tensor in layout.tensors)
    assert all("named by the template" in tensor.note for tensor in layout.tensors)
    assert layout.problems == nameless.problems


def test_what_is_lost_with_the_head_is_missing_by_name(tmp_path, headless, sibling):
    data = headless.read_bytes()
    headless.write_bytes(data[data.index(b"model/data/3") :])
    layout = named(torch_zip.survey(headless), sibling)
    truth = dict(leaves(state()))
    assert {tensor.path for tensor in layout.tensors} == set(truth)
    missing = {tensor.path for tensor in layout.tensors if tensor.run is None}
    assert {("base",), ("many", "0"), ("many", "1")} <= missing
    assert all(same(value, truth[path]) for path, value in values(layout).items())


def test_one_record_that_does_not_fit_and_nothing_is_named(tmp_path, headless):
    other = state()
    other["scalar"] = torch.zeros(2)
    torch.save(other, tmp_path / "other.pt")
    template = template_of(torch_zip.survey(tmp_path / "other.pt"))
    with pytest.raises(CheckpointError, match=r"model/data/11 has 4 bytes, the template 8 bytes"):
        named(torch_zip.survey(headless), template)


def test_a_template_with_fewer_records_does_not_fit(tmp_path, headless):
    torch.save({"base": state()["base"]}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no such record"):
        named(torch_zip.survey(headless), template_of(torch_zip.survey(tmp_path / "other.pt")))


def test_a_file_that_has_its_names_comes_back_as_it_is(tmp_path, sibling):
    torch.save(state(), tmp_path / "model.pt")
    layout = torch_zip.survey(tmp_path / "model.pt")
    assert named(layout, sibling) is layout


def test_keys_that_are_addresses_are_matched_by_sizes_in_order(tmp_path):
    """As torch before 2.0 made them: none of the template's keys means anything in another file."""
    sizes = [24, 8, 16, 4]
    parts = [Part(f"archive/data/9413472355{key}", bytes([key]) * size) for key, size in enumerate(sizes)]
    write_zip(tmp_path / "old.pt", [*parts, Part("archive/version", b"3\n")])
    shapes = [(f"layer{number}", "U8", (size,)) for number, size in enumerate([12, *sizes])]
    layout = named(torch_zip.survey(tmp_path / "old.pt"), Template.of_shapes(shapes))
    found = {tensor.name: tensor_of(tensor).tolist() for tensor in layout.tensors if tensor.run is not None}
    assert found == {f"layer{number + 1}": [number] * size for number, size in enumerate(sizes)}
    with pytest.raises(CheckpointError, match="in 0 ways"):
        named(torch_zip.survey(tmp_path / "old.pt"), Template.of_shapes(shapes[:3]))
    twice = Template.of_shapes([(f"{half}{name}", dtype, shape) for half in "ab" for name, dtype, shape in shapes])
    with pytest.raises(CheckpointError, match="in 2 ways"):
        named(torch_zip.survey(tmp_path / "old.pt"), twice)


def test_a_safetensors_template_says_nothing_of_the_order_in_a_torch_file(tmp_path, headless):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="does not keep the order"):
        named(torch_zip.survey(headless), read_template(tmp_path / "a.safetensors"))


# lists


def test_a_list_of_shapes_is_a_template(tmp_path, headless):
    rows, seen = [], set()
    for path, tensor in leaves(state()):
        if path[0] != "nested":
            dtype = next(row.dtype for row in torch_zip_tensors(state(), tmp_path) if row.path == path)
            rows.append([".".join(path), dtype, list(tensor.shape)])
            seen.add(path)
    (tmp_path / "list.json").write_text(json.dumps({"tensors": rows}))
    layout = named(torch_zip.survey(headless), read_template(tmp_path / "list.json"))
    truth = {".".join(path): tensor for path, tensor in leaves(state()) if path in seen}
    assert {tensor.name: raw(tensor_of(tensor)) for tensor in layout.tensors} == {n: raw(t) for n, t in truth.items()}


def torch_zip_tensors(value, folder):
    torch.save(value, folder / "whole.pt")
    return torch_zip.survey(folder / "whole.pt").tensors


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "not valid JSON"),
        ("[]", "neither a manifest nor"),
        ('{"tensors": [["a", "F32"]]}', "neither a manifest nor"),
        ('{"tensors": [["a", "F31", [2]]]}', "unknown dtype"),
        ('{"tensors": [["a", "F32", [-2]]]}', "shape"),
        ('{"tensors": [["a", "F32", [true]]]}', "shape"),
        ('{"tensors": [["a", "F32", [2]], ["a", "F32", [2]]]}', "twice"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, content, what):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(CheckpointError, match=what):
        read_template(tmp_path / "list.json")


def test_no_file_is_no_template(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_template(tmp_path / "none.json")


def test_a_damaged_checkpoint_is_no_template(tmp_path):
    torch.save(state(), tmp_path / "model.pt")
    data = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(data[:2000])
    with pytest.raises(CheckpointError, match="is missing in it"):
        template_of(torch_zip.survey(tmp_path / "model.pt"))


# safetensors


def tensors(seed):
    rng = np.random.default_rng(seed)
    return {
        "wide": torch.from_numpy(rng.normal(size=(5, 4))),
        "b": torch.from_numpy(rng.normal(size=9).astype(np.float32)),
        "a": torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float32)),
        "half": torch.from_numpy(rng.normal(size=7).astype(np.float16)),
        "odd": torch.from_numpy(rng.integers(0, 255, 3).astype(np.uint8)),
    }


@pytest.fixture
def safe(tmp_path):
    save_file(tensors(1), tmp_path / "model.safetensors")
    save_file(tensors(2), tmp_path / "sibling.safetensors")
    return tmp_path / "model.safetensors", read_template(tmp_path / "sibling.safetensors")


def safe_bytes(layout):
    found = {}
    for tensor in layout.tensors:
        if tensor.run is not None:
            with tensor.run.file.open("rb") as file:
                file.seek(tensor.run.offset)
                found[tensor.name] = file.read(tensor.run.size)
    return found


def test_a_safetensors_file_without_its_head_is_filled_from_its_end(safe):
    path, template = safe
    data = path.read_bytes()
    truth = {name: raw(tensor) for name, tensor in tensors(1).items()}
    start = 8 + int.from_bytes(data[:8], "little")
    spans = {t.name: t.run.offset for t in safetensors_file.survey(path).tensors}
    for cut in range(1, len(data), 7):
        path.write_bytes(data[cut:])
        layout = named(Layout(path, Format.UNKNOWN, ()), template)
        found = safe_bytes(layout)
        assert set(found) == {name for name, offset in spans.items() if offset >= cut or cut <= start}
        assert all(content == truth[name] for name, content in found.items())
        assert all(tensor.run is None or tensor.run.checksum is None for tensor in layout.tensors)


def test_a_damaged_entry_is_named_and_placed_by_the_others(safe):
    path, template = safe
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"half"', b'"hell"'))
    layout = named(survey(path), template)
    assert safe_bytes(layout) == {name: raw(tensor) for name, tensor in tensors(1).items()}


def test_a_file_cut_at_its_end_is_left_as_its_whole_header_says(safe):
    path, template = safe
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 60])
    layout = named(survey(path), template)
    truth = {name: raw(tensor) for name, tensor in tensors(1).items()}
    found = safe_bytes(layout)
    assert found
    assert all(content == truth[name] for name, content in found.items())
    # the header still says where all of them were: nothing is to be guessed from the end
    start = int.from_bytes(data[:8], "little") + 8
    path.write_bytes(data[: start + 20])
    assert safe_bytes(named(survey(path), template)) == {}


def test_a_whole_safetensors_file_comes_back_as_it_is(safe):
    path, template = safe
    layout = survey(path)
    assert named(layout, template) is layout


def test_a_manifest_of_the_very_file_proves_what_it_places(ours, tmp_path):
    """Our manifest, kept elsewhere, and weights that lost their head."""
    template = read_template(ours / "manifest.json")
    name = json.loads((ours / "manifest.json").read_text())["weights"]
    data = (ours / name).read_bytes()
    start = int.from_bytes(data[:8], "little") + 8
    lone = tmp_path / "lone" / name
    lone.parent.mkdir()
    lone.write_bytes(data[start:])
    layout = named(
        Layout(lone, Format.UNKNOWN, ()),
        Template(template.source, tuple(t for t in template.tensors if t.file == name), True),
    )
    assert len(layout.tensors) == 4
    assert all(isinstance(tensor.run.checksum, Checksum) for tensor in layout.tensors)


def test_of_another_file_the_manifest_proves_nothing(ours, tmp_path):
    template = read_template(ours / "manifest.json")
    meant = [tensor for tensor in template.tensors if tensor.path[0] != "training"]
    size = sum(tensor.size for tensor in meant)
    lone = tmp_path / meant[0].file
    lone.write_bytes(struct.pack("<Q", 0xABCDEF) * (size // 8 + 1))
    layout = named(Layout(lone, Format.UNKNOWN, ()), Template(template.source, tuple(meant), True))
    assert len(layout.tensors) == 4
    assert {tensor.run.checksum for tensor in layout.tensors} == {None}


def test_a_torch_template_says_nothing_of_places_in_safetensors(safe, sibling):
    path, _ = safe
    with pytest.raises(CheckpointError, match="in which order safetensors keeps"):
        named(Layout(path, Format.UNKNOWN, ()), sibling)
