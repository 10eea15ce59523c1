import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mobile_vla.checkpoint.formats import safetensors_file
from mobile_vla.checkpoint.formats.kinds import identify
from mobile_vla.checkpoint.formats.shards import numbered_sets, survey
from mobile_vla.checkpoint.layout import Format, Layout, Run, Tensor
from mobile_vla.core import CheckpointError, DamagedCheckpointError, UnsafeCheckpointError

RNG = np.random.default_rng(5)
TENSORS = {f"model.layers.{number}.weight": RNG.normal(size=(4, 3)).astype(np.float32) for number in range(6)}
NAMES = tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
INDEX = "model.safetensors.index.json"
PARTS = {name: dict(list(TENSORS.items())[2 * place : 2 * place + 2]) for place, name in enumerate(NAMES)}


def survey_file(path):
    kind = identify(path)
    if kind.format is None:
        raise CheckpointError(f"{path} is no checkpoint: {kind.what}")
    return safetensors_file.survey(path)


def write_index(folder, **changes):
    weight_map = {name: file for file, part in PARTS.items() for name in part}
    size = sum(value.nbytes for value in TENSORS.values())
    index = {"metadata": {"total_parameters": 72, "total_size": size}, "weight_map": weight_map} | changes
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for file, part in PARTS.items():
        save_file(part, folder / file, {"format": "pt"})
    write_index(folder)
    return folder


def look(path):
    return survey(path, survey_file)


def said(layout):
    return " | ".join(problem.what for problem in layout.problems)


def lost(layout):
    return {name for problem in layout.problems for name in problem.tensors} - {each.name for each in layout.tensors}


def are_right(layout):
    """Each tensor of the layout has the bytes that were saved under its name."""
    for tensor in layout.tensors:
        with tensor.run.file.open("rb") as file:
            file.seek(tensor.run.offset + tensor.start)
            assert file.read(tensor.size) == TENSORS[tensor.name].tobytes()
    return {tensor.name for tensor in layout.tensors}


@pytest.mark.parametrize("name", ["", INDEX])
def test_a_whole_set_is_one_layout(folder, name):
    layout = look(folder / name)
    assert layout.problems == ()
    assert are_right(layout) == set(TENSORS)
    assert layout.format == Format.SAFETENSORS_SHARDS
    assert layout.path == folder / name
    assert layout.metadata["format"] == "pt"
    assert {run.file.name for run in layout.runs} == set(NAMES)
    assert any("no checksums" in sentence for sentence in layout.unknowable)


def test_shards_may_be_links_as_in_the_cache_of_hugging_face(folder, tmp_path):
    for place, name in enumerate(NAMES):
        shutil.move(folder / name, tmp_path / f"blob{place}")
        (folder / name).symlink_to(f"../blob{place}")
    assert look(folder).problems == ()


@pytest.mark.parametrize("gone", NAMES)
def test_a_missing_shard_is_named_with_its_tensors(folder, gone):
    (folder / gone).unlink()
    layout = look(folder)
    assert said(layout) == f"{gone} is missing"
    assert set(layout.problems[0].tensors) == set(PARTS[gone])
    assert are_right(layout) == set(TENSORS) - set(PARTS[gone])


def test_a_shard_that_is_something_else_is_called_by_its_name(folder):
    (folder / NAMES[1]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    layout = look(folder)
    assert "Git LFS pointer" in said(layout)
    assert lost(layout) == set(PARTS[NAMES[1]])
    (folder / NAMES[1]).unlink()
    (folder / NAMES[1]).mkdir()
    assert said(look(folder)) == f"{NAMES[1]} is no file"


def test_the_damage_of_a_shard_is_told_with_its_name(folder):
    data = (folder / NAMES[2]).read_bytes()
    (folder / NAMES[2]).write_bytes(data[:-5])
    assert f"{NAMES[2]}: " in said(look(folder))


def test_a_shard_in_the_place_of_another_costs_that_ones_tensors(folder):
    shutil.copy(folder / NAMES[0], folder / NAMES[1])
    layout = look(folder)
    assert lost(layout) == set(PARTS[NAMES[1]])
    assert are_right(layout) == set(TENSORS) - set(PARTS[NAMES[1]])
    assert f"but in {NAMES[1]} too" in said(layout)
    assert all(tensor.run.file.name != NAMES[1] for tensor in layout.tensors)


def test_swapped_shards_are_told_and_cost_nothing(folder):
    (folder / NAMES[0]).rename(folder / "aside")
    (folder / NAMES[1]).rename(folder / NAMES[0])
    (folder / "aside").rename(folder / NAMES[1])
    layout = look(folder)
    assert lost(layout) == set()
    assert are_right(layout) == set(TENSORS)
    assert len(layout.problems) == 2
    assert f"stands in {NAMES[0]}, and the index seeks it in {NAMES[1]}" in said(layout)


def test_a_tensor_the_index_does_not_know_is_told(folder):
    save_file(PARTS[NAMES[0]] | {"stray": np.ones(2)}, folder / NAMES[0])
    assert f"stray stands in {NAMES[0]}, and the index does not know it" in said(look(folder))


def test_a_shard_of_another_model_gives_no_tensors(folder):
    save_file({"another.weight": np.ones((2, 2)), "another.bias": np.ones(2)}, folder / NAMES[1])
    layout = look(folder)
    assert said(layout) == f"{NAMES[1]} belongs to another checkpoint: the index knows no tensor in it"
    assert lost(layout) == set(PARTS[NAMES[1]])
    assert are_right(layout) == set(TENSORS) - set(PARTS[NAMES[1]])


def test_a_tensor_in_two_shards_that_the_index_seeks_elsewhere_is_nobodys(folder):
    write_index(folder)
    save_file(PARTS[NAMES[0]] | {"twice": np.ones(2)}, folder / NAMES[0])
    save_file(PARTS[NAMES[1]] | {"twice": np.zeros(2)}, folder / NAMES[1])
    layout = look(folder)
    assert lost(layout) == {"twice"}


def test_a_tensor_that_its_shard_lacks_is_named(folder):
    kept = dict(list(PARTS[NAMES[0]].items())[:1])
    save_file(kept, folder / NAMES[0])
    layout = look(folder)
    assert lost(layout) == set(PARTS[NAMES[0]]) - set(kept)
    assert f"in {NAMES[0]}, which does not hold it" in said(layout)


def test_files_named_like_shards_that_the_index_does_not_know_are_told(folder):
    shutil.copy(folder / NAMES[0], folder / "model-00004-of-00004.safetensors")
    layout = look(folder)
    assert "unknown to the index: model-00004-of-00004.safetensors" in said(layout)
    assert layout.problems[0].harmless
    assert are_right(layout) == set(TENSORS)


def test_sums_that_do_not_fit_cost_no_tensor(folder):
    write_index(folder, metadata={"total_size": 7})
    layout = look(folder)
    assert "total_size 7, its tensors have 288" in said(layout)
    assert all(problem.harmless for problem in layout.problems)
    write_index(folder, metadata={})
    assert look(folder).problems == ()


def test_torch_counts_shared_bytes_once(folder):
    shared = Run("archive/data/0", folder / "model-00001-of-00001.bin", 0, 48)
    tensors = tuple(Tensor((name,), "F32", (4, 3), shared) for name in ("embed.weight", "head.weight"))
    shared.file.write_bytes(bytes(48))
    index = folder / "pytorch_model.bin.index.json"
    weight_map = {tensor.name: shared.file.name for tensor in tensors}
    for size, problems in ((48, 0), (96, 0), (50, 1)):
        index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
        layout = survey(index, lambda path: Layout(path, Format.TORCH_ZIP, tensors, (shared,)))
        assert (len(layout.problems), layout.format, layout.runs) == (problems, Format.TORCH_SHARDS, (shared,))


def test_without_an_index_the_files_count_each_other(folder):
    (folder / INDEX).unlink()
    layout = look(folder)
    assert are_right(layout) == set(TENSORS)
    assert [problem.harmless for problem in layout.problems] == [True]
    (folder / NAMES[1]).unlink()
    layout = look(folder)
    assert f"missing: {NAMES[1]}" in said(layout)
    assert are_right(layout) == set(TENSORS) - set(PARTS[NAMES[1]])


def test_without_an_index_a_tensor_in_two_shards_is_nobodys(folder):
    (folder / INDEX).unlink()
    save_file({name: value + 1 for name, value in PARTS[NAMES[0]].items()}, folder / NAMES[1])
    layout = look(folder)
    assert lost(layout) == set(PARTS[NAMES[0]])
    assert "nothing says which is right" in said(layout)


def test_files_counted_from_zero_are_all_there(folder):
    (folder / INDEX).unlink()
    for number, name in enumerate(NAMES):
        (folder / name).rename(folder / f"model-0000{number}-of-00003.safetensors")
    assert "missing" not in said(look(folder))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "[" * 9999])
def test_a_damaged_index_is_told_and_the_files_serve(folder, content):
    (folder / INDEX).write_text(content)
    layout = look(folder)
    assert f"{INDEX} is damaged" in said(layout)
    assert are_right(layout) == set(TENSORS)


def test_an_index_that_is_a_web_page_is_said_to_be(folder):
    (folder / INDEX).write_text("<html><title>Sign in</title></html>")
    assert 'a saved web page titled "Sign in"' in said(look(folder))
    for name in NAMES:
        (folder / name).unlink()
    with pytest.raises(DamagedCheckpointError, match="Sign in"):
        look(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..", "C:\\x.bin", "a\0b"])
def test_an_index_that_leads_out_of_its_folder_is_refused(folder, name):
    write_index(folder, weight_map={"w": name})
    with pytest.raises(UnsafeCheckpointError) as refused:
        look(folder)
    assert refused.value.culprit == repr(name)


@pytest.mark.parametrize("name", [INDEX, ".", "", "sub/model.safetensors", "sub", "\ud800", "\x1b[2J.safetensors"])
def test_an_index_that_names_no_shard_is_not_followed(folder, name):
    (folder / "sub").symlink_to(".")
    write_index(folder, weight_map={"w": name})
    layout = survey(folder, lambda path: pytest.fail(f"{path} was opened"))
    assert lost(layout) == {"w"}
    assert said(layout).isprintable()


def test_of_several_sets_the_safetensors_are_taken_and_the_others_named(folder):
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "model.fp16.safetensors.index.json").write_text("{}")
    layout = look(folder)
    assert are_right(layout) == set(TENSORS)
    (sentence,) = [each for each in layout.unknowable if "was not looked at" in each]
    assert "pytorch_model.bin.index.json" in sentence
    assert "model.fp16.safetensors.index.json" in sentence


def test_no_shards_at_all(tmp_path):
    with pytest.raises(CheckpointError, match="neither an index"):
        look(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        look(tmp_path / INDEX)
    assert numbered_sets(tmp_path) == []


def test_a_set_of_torch_files_is_read_by_whoever_reads_them(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.ones(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    seen = []
    layout = survey(tmp_path, lambda path: seen.append(path.name) or Layout(path, Format.TORCH_ZIP, ()))
    assert seen == ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    assert layout.format == Format.TORCH_SHARDS


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for file, part in PARTS.items():
        save_file(part, folder / file)
    write_index(folder)
    return folder


def test_every_flipped_bit_of_the_index_is_told(shared_folder):
    index = shared_folder / INDEX
    whole = index.read_bytes()
    try:
        for place in range(len(whole)):
            data = bytearray(whole)
            data[place] ^= 1 << (place % 8)
            index.write_bytes(data)
            try:
                layout = look(shared_folder)
            except UnsafeCheckpointError:
                continue
            assert layout.problems, (place, bytes(data[max(0, place - 20) : place + 20]))
            assert are_right(layout) == set(TENSORS) - lost(layout)
    finally:
        index.write_bytes(whole)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TENSORS, "x"]), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["metadata", "weight_map", "x"]), ANY_JSON))
def test_any_index_gives_a_layout_or_a_refusal(shared_folder, values):
    index = shared_folder / INDEX
    whole = index.read_bytes()
    index.write_text(json.dumps(values))
    try:
        layout = look(shared_folder)
        assert layout.problems
        are_right(layout)
    except UnsafeCheckpointError:
        pass
    finally:
        index.write_bytes(whole)


def test_what_the_tests_take_for_right_is_what_the_library_reads(folder):
    for file, part in PARTS.items():
        for name, value in load_file(folder / file).items():
            np.testing.assert_array_equal(value, part[name])
