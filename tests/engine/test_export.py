"""Programs: saved here, run in a process of their own that knows nothing of this package, and equal to the network."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from engine.little import CASES, little
from mobile_vla.core import (
    CheckpointError,
    ConfigError,
    DamagedCheckpointError,
    UnsafeCheckpointError,
)
from mobile_vla.engine.export import export_program, in_precision, load_program, save_program
from mobile_vla.policy.step import Decision, Inputs
from mobile_vla.policy.vla_step import VlaStep

pytestmark = pytest.mark.timeout(1800)  # six programs are made once, for all tests, however busy the machine

MOST = 24
TOLERANCES = {"fp32": 1e-4, "bf16": 0.03}
"""Largest difference to the network run directly, in shares of the limits, in logits, and in shares of the picture."""
TEXTS = ["go to the red cup", "파란 의자 왼쪽으로 가서 멈춰"]
ELSEWHERE = """
import sys
import torch
for folder in sys.argv[1:]:
    program = torch.export.load(f"{folder}/step.pt2")
    inputs = torch.load(f"{folder}/inputs.pt", weights_only=True)
    with torch.no_grad():
        torch.save(program.module()(*inputs), f"{folder}/outputs.pt")
assert not [name for name in sys.modules if name.startswith(("mobile_vla", "transformers"))]
"""


def step_in(case: str, precision: str) -> VlaStep:
    step = in_precision(little(case), precision)
    step.most = MOST
    return step


def inputs_of(case: str, precision: str) -> Inputs:
    step = step_in(case, precision)
    generator = torch.Generator().manual_seed(5)
    pixels, _, motion, history = step.example(len(TEXTS))
    pixels = torch.randint(0, 256, pixels.shape, dtype=torch.uint8, generator=generator)
    motion = torch.randn(motion.shape, generator=generator)
    history = torch.randn(history.shape, generator=generator).to(history)
    words = tuple(torch.cat(parts) for parts in zip(*(step.read(text) for text in TEXTS), strict=True))
    return Inputs(pixels, words, motion, history)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A folder for each case and precision: the program, inputs, and what another process made of them."""
    folders = {}
    for case in CASES:
        for precision in TOLERANCES:
            folder = folders[case, precision] = tmp_path_factory.mktemp("program")
            program = export_program(step_in(case, precision), len(TEXTS))
            save_program(folder / "step.pt2", program, {"case": case, "precision": precision})
            torch.save(tuple(inputs_of(case, precision)), folder / "inputs.pt")
    subprocess.run([sys.executable, "-c", ELSEWHERE, *map(str, folders.values())], check=True, timeout=900)
    return folders


@pytest.fixture
def saved(programs: dict[tuple[str, str], Path], tmp_path: Path) -> Path:
    """One of them, to do harm to."""
    shutil.copytree(programs["clip_lstm, without end", "fp32"], tmp_path / "copy")
    return tmp_path / "copy" / "step.pt2"


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("case", CASES)
def test_a_program_in_another_process_equals_the_network(
    programs: dict[tuple[str, str], Path], case: str, precision: str
) -> None:
    step = step_in(case, precision)
    with torch.inference_mode():
        wanted = Decision(*step(*inputs_of(case, precision)))
    given = Decision(*torch.load(programs[case, precision] / "outputs.pt", weights_only=True))
    for name, one, other in zip(Decision._fields, wanted, given, strict=True):
        assert one.dtype == other.dtype == (torch.float32 if name != "history" else step.start().dtype)
        difference = float((one.float() - other.float()).abs().max())
        assert difference <= TOLERANCES[precision], name


@pytest.mark.parametrize("case", CASES)
def test_a_program_in_bfloat16_is_near_the_one_in_float32(programs: dict[tuple[str, str], Path], case: str) -> None:
    exact, rounded = (
        Decision(*torch.load(programs[case, precision] / "outputs.pt", weights_only=True)) for precision in TOLERANCES
    )
    for one, other in zip(exact[:3], rounded[:3], strict=True):
        assert float((one - other).abs().mean()) < 0.05


def test_a_program_comes_back_with_what_was_said_of_it(programs: dict[tuple[str, str], Path]) -> None:
    case, precision = "kosmos_lstm, words first", "bf16"
    program, about = load_program(programs[case, precision] / "step.pt2")
    assert isinstance(program, ExportedProgram)
    assert about == {"case": case, "precision": precision}
    inputs = torch.load(programs[case, precision] / "inputs.pt", weights_only=True)
    again = program.module()(*inputs)
    before = torch.load(programs[case, precision] / "outputs.pt", weights_only=True)
    for one, other in zip(again, before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_room_for_words_changes_no_answer(case: str) -> None:
    step = step_in(case, "fp32")
    inputs = inputs_of(case, "fp32")
    answers = []
    for most in (MOST, 40):
        step.most = most
        words = tuple(torch.cat(parts) for parts in zip(*(step.read(text) for text in TEXTS), strict=True))
        with torch.inference_mode():
            answers.append(step(*inputs._replace(words=words)))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown precision 'int4': choose among fp32, bf16, fp16"):
        in_precision(little("clip_lstm, without end"), "int4")


def test_the_network_that_was_exported_stays_as_it_was() -> None:
    network = little("clip_lstm, without end")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert in_precision(network, "fp32").network is network
    assert next(in_precision(network, "bf16").parameters()).dtype == torch.bfloat16
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_a_changed_byte_is_noticed(saved: Path, place: float) -> None:
    data = bytearray(saved.read_bytes())
    data[int(place * len(data))] ^= 0x10
    saved.write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match=r"step\.pt2 is damaged: .*export it again"):
        load_program(saved)


def test_one_that_is_cut_off_or_alone_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedCheckpointError, match="export it again"):
        load_program(saved)
    saved.unlink()
    with pytest.raises(CheckpointError, match=r"step\.pt2 cannot be read"):
        load_program(saved)
    saved.write_bytes(data)
    note = saved.with_name("step.pt2.json")
    note.write_text("{")
    with pytest.raises(DamagedCheckpointError, match="not valid JSON"):
        load_program(saved)
    note.unlink()
    with pytest.raises(CheckpointError, match=r"step\.pt2\.json cannot be read"):
        load_program(saved)


class Hostile:
    """What it leaves in the current folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.mkdir, (Path("unpickled"),))


def forged(path: Path, part: str, change: object) -> None:
    """Change one part of a program, and its note to match."""
    from mobile_vla.engine.export import _digest

    whole = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        found = False
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(part):
                data, found = change(data), True
            new.writestr(name, data)
        if not found:
            new.writestr(f"step/{part}", change(b""))
    with path.open("rb") as file:
        note = {"sha256": _digest(file), "about": {}}
    path.with_name(f"{path.name}.json").write_text(json.dumps(note))


def pickled(_: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save(Hostile(), buffer)
    return buffer.getvalue()


def by_pickle(data: bytes) -> bytes:
    return data.replace(b'"use_pickle": false', b'"use_pickle": true')


def by_formula(data: bytes) -> bytes:
    return data.replace(b'{"as_int": 96}', b'{"as_expr": {"expr_str": "__import__(\'os\').mkdir(\'unpickled\')"}}')


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("data/sample_inputs/model.pt", pickled),
        ("model_weights_config.json", by_pickle),
        ("models/model.json", by_formula),
        ("data/constants/custom_obj_0", pickled),
        ("data/weights/model.pt", pickled),
    ],
)
def test_a_hostile_program_is_not_opened(
    saved: Path, part: str, change: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = saved.read_bytes()
    forged(saved, part, change)
    assert saved.read_bytes() != before
    with pytest.raises(UnsafeCheckpointError, match=r"step\.pt2 is not opened"):
        load_program(saved)
    assert not (tmp_path / "unpickled").exists()


def test_a_zip_of_ours_that_torch_cannot_read_says_so(saved: Path) -> None:
    forged(saved, "models/model.json", lambda _: b"{}")
    with pytest.raises(CheckpointError, match=r"cannot be read by torch .*: export it again"):
        load_program(saved)


def test_outputs_are_tensors_of_the_sessions(programs: dict[tuple[str, str], Path]) -> None:
    outputs = torch.load(programs["kosmos_clip", "fp32"] / "outputs.pt", weights_only=True)
    assert all(isinstance(each, Tensor) and len(each) == len(TEXTS) for each in outputs)
