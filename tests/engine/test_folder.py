"""Engines on the disk: whole or as before, refused when damaged, foreign or of other weights."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.little import little
from mobile_vla.checkpoint.atomic import write_bytes
from mobile_vla.checkpoint.manifest import CHECKPOINT, ENGINE
from mobile_vla.checkpoint.verify import verify
from mobile_vla.core import CheckpointError, ConfigError, DamagedCheckpointError
from mobile_vla.engine import folder as folders
from mobile_vla.engine.folder import FileRecord, is_engine, make_engine, note, open_engine, read_engine, usable
from mobile_vla.policy.weights import SHIPPED, load_network, save_network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engines") / "mine"
    make_engine(SHIPPED, out, "torch", "bf16", notes={"seen": 3})
    return out


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(engine: Path, **changes: object) -> None:
    """Change the manifest as one would who knows how: its own hash is right."""
    write_bytes(engine / ENGINE, replace(read_engine(engine), **changes).to_json())


def test_an_engine_opens_and_says_what_it_is(engine: Path) -> None:
    assert is_engine(engine)
    manifest = read_engine(engine)
    assert (manifest.engine, manifest.precision, manifest.sessions) == ("torch", "bf16", 1)
    assert manifest.policy == "compact"
    assert manifest.notes == {"seen": 3}
    assert open_engine(engine).contract.horizon == 8
    assert note(engine, driven={"success": 0.9}).notes == {"seen": 3, "driven": {"success": 0.9}}
    assert read_engine(engine).notes["driven"] == {"success": 0.9}


def test_the_checkpoint_beside_it_shares_the_originals_files(tmp_path: Path) -> None:
    original = tmp_path / "original"
    shutil.copytree(SHIPPED, original)
    make_engine(original, tmp_path / "engine", "torch", "fp32")
    for path in (tmp_path / "engine" / CHECKPOINT).iterdir():
        assert os.path.samefile(path, original / path.name)


def test_another_machines_engine_is_refused(engine: Path) -> None:
    machine = replace(read_engine(engine).machine, processor="Cortex-A78AE", libraries={"torch": "1.0"})
    rewrite(engine, machine=machine)
    with pytest.raises(CheckpointError, match=r"made for another machine \(processor: Cortex-A78AE there") as caught:
        open_engine(engine)
    assert "torch: 1.0 there" in str(caught.value)
    assert f"mobile-vla export {engine / CHECKPOINT} --out DIR" in str(caught.value)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.7, 0.99])
def test_a_changed_manifest_is_noticed(engine: Path, place: float) -> None:
    data = bytearray((engine / ENGINE).read_bytes())
    data[int(place * len(data))] ^= 0x02
    (engine / ENGINE).write_bytes(data)
    with pytest.raises(CheckpointError, match="export"):
        open_engine(engine)


def test_a_cut_off_or_missing_manifest_is_refused(engine: Path) -> None:
    data = (engine / ENGINE).read_bytes()
    (engine / ENGINE).write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedCheckpointError, match="export the engine again"):
        open_engine(engine)
    (engine / ENGINE).unlink()
    with pytest.raises(CheckpointError, match=r"no engine at .*engine\.json cannot be read"):
        open_engine(engine)


def test_files_that_changed_or_are_gone_are_named(engine: Path) -> None:
    path = engine / "step.bin"
    path.write_bytes(b"as it was")
    known = folders._record(path)
    rewrite(engine, files={"step.bin": known})
    open_engine(engine)
    path.write_bytes(b"as it is.")
    with pytest.raises(DamagedCheckpointError, match=r"step\.bin is damaged: it holds other bytes"):
        open_engine(engine)
    path.unlink()
    with pytest.raises(DamagedCheckpointError, match=r"step\.bin is damaged: it cannot be read"):
        open_engine(engine)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/hostname"])
def test_a_manifest_that_names_files_elsewhere_is_refused(engine: Path, name: str) -> None:
    rewrite(engine, files={name: FileRecord(1, "0")})
    with pytest.raises(DamagedCheckpointError, match="it names a file elsewhere"):
        open_engine(engine)


def test_other_weights_beside_it_are_refused(engine: Path) -> None:
    network = load_network(SHIPPED)
    network.enter.bias.data.add_(1.0)
    shutil.rmtree(engine / CHECKPOINT)
    save_network(engine / CHECKPOINT, network, {})
    with pytest.raises(CheckpointError, match="was made from weights 96dbd90854de9c7a, beside it lie"):
        open_engine(engine)


def test_damaged_weights_beside_it_are_refused(engine: Path) -> None:
    weights = engine / CHECKPOINT / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    weights.unlink()  # it may be shared with the original
    weights.write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match="other bytes than were saved"):
        open_engine(engine)


def test_another_versions_engine_is_refused(engine: Path) -> None:
    values = json.loads((engine / ENGINE).read_bytes())
    (engine / ENGINE).write_text(json.dumps(values | {"format": 7}))
    with pytest.raises(CheckpointError, match="another version of mobile-vla: export it again"):
        open_engine(engine)


def test_an_engine_takes_the_place_of_an_engine_and_of_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make_engine(SHIPPED, out, "torch", "fp32")
    make_engine(SHIPPED, out, "torch", "bf16")
    assert read_engine(out).precision == "bf16"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something that is no engine"):
        make_engine(SHIPPED, tmp_path / "other", "torch", "fp32")
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"


def test_what_fails_leaves_the_engine_that_was_there(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (engine / ENGINE).read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_bytes", fails)
    with pytest.raises(CheckpointError, match=r"cannot be written to .*No space left"):
        make_engine(SHIPPED, engine, "torch", "fp32")
    assert (engine / ENGINE).read_bytes() == before
    assert [path.name for path in engine.parent.iterdir()] == [engine.name]
    open_engine(engine)


def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for arguments, words in (
        (("torch", "int3"), "the engine torch has no precision 'int3': choose among fp32, bf16"),
        (("torchy", "fp32"), "no engine called 'torchy'.*torch"),
        (("torch", "fp32", 0), "0 sessions decides nothing"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_engine(SHIPPED, tmp_path / "out", *arguments)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        make_engine(tmp_path / "nothing", tmp_path / "out", "torch", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_the_arithmetic_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from mobile_vla.engine.backends.torch_ import TorchBackend

    monkeypatch.setattr(TorchBackend, "unusable", lambda self, precision: "it has no bfloat16")
    with pytest.raises(ConfigError, match="the engine torch cannot run in bf16 here: it has no bfloat16"):
        usable("torch", "bf16")


def test_what_was_left_out_stays_out(tmp_path: Path) -> None:
    save_network(tmp_path / "policy", little("kosmos_clip"), {})
    left = "decoder_layers=1 latents=0.5"
    made = make_engine(tmp_path / "policy", tmp_path / "engine", "torch", "fp32", shorten=left)
    assert made.shorten == left
    assert open_engine(tmp_path / "engine").reader.network.shortened == made.shorten
    whole = make_engine(tmp_path / "policy", tmp_path / "whole", "torch", "fp32")
    assert made.parameters < whole.parameters
    with pytest.raises(ConfigError, match="cannot be shortened"):
        make_engine(SHIPPED, tmp_path / "other", "torch", "fp32", shorten="latents=0.5")


def test_an_engine_that_lost_its_checkpoint_says_so(engine: Path) -> None:
    shutil.rmtree(engine / CHECKPOINT)
    with pytest.raises(CheckpointError, match="has lost its checkpoint: export it again"):
        open_engine(engine)


def test_an_engine_is_no_checkpoint_and_names_the_one_within(engine: Path, tmp_path: Path) -> None:
    within = re.escape(f"{engine} is an engine: give the checkpoint that it was made from, {engine / CHECKPOINT}")
    with pytest.raises(ConfigError, match=within):
        make_engine(engine, tmp_path / "another", "torch", "fp32")
    with pytest.raises(CheckpointError, match=within):
        load_network(engine)
    with pytest.raises(CheckpointError, match=within):
        verify(engine)
