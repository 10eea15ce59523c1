import hashlib
import io
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import damage
from damage import Result, read, score_cases, write_case
from damage_corpus import Case, Keep, cases_of, corpus
from damage_pristine import Pristine, pristine_checkpoints
from damage_structure import Kind
from damage_survivors import Due, due
from mobile_vla.checkpoint.salvage import Rescue, salvage
from mobile_vla.checkpoint.template import Template
from mobile_vla.checkpoint.verify import State, Verdict, verify

PRISTINE = {pristine.name: pristine for pristine in pristine_checkpoints()}
every_kind = pytest.mark.parametrize("name", PRISTINE)


@every_kind
def test_every_damage_is_found_and_all_that_survives_comes_back(name: str) -> None:
    results = score_cases(cases_of(PRISTINE[name]))
    failures = [f"{result.case.name}: {sentence}" for result in results for sentence in result.failures]
    assert not failures, f"{len(failures)} failures, such as\n" + "\n".join(failures[:8])
    assert sum(result.score.proven + result.score.unproven for result in results) > 0


def test_the_corpus_is_large_and_has_every_kind_of_damage() -> None:
    cases = list(corpus())
    names = {case.name for case in cases}
    damages = Counter(case.damage for case in cases)
    assert len(names) == len(cases) >= 500
    assert {case.pristine.name for case in cases} == set(PRISTINE)
    assert len(damages) >= 25
    assert sum(not case.knowable for case in cases) < len(cases) / 10


def test_a_seed_gives_the_same_files_each_time() -> None:
    def digest(seed: int) -> str:
        whole = hashlib.sha256()
        for name in ("torch legacy, mixed", "our folder"):
            pristine = next(each for each in pristine_checkpoints(seed) if each.name == name)
            for case in cases_of(pristine, seed):
                whole.update(case.name.encode())
                for file in sorted(case.files):
                    whole.update(case.content(file))
        return whole.hexdigest()

    assert digest(3) == digest(3) != digest(4)


# the ground truth -----------------------------------------------------------------------------------------------------


@every_kind
def test_whole_checkpoints_are_found_whole_with_the_tensors_that_were_put_in(name: str, tmp_path: Path) -> None:
    pristine = PRISTINE[name]
    verdict = verify(_write(pristine, tmp_path))
    proves = not {Kind.SAFETENSORS, Kind.LEGACY} & set(pristine.kinds.values())
    assert not verdict.problems
    assert verdict.state is (State.WHOLE if proves else State.UNPROVEN)
    assert {finding.state for finding in verdict.findings} == {verdict.state}
    found = {f.tensor.name: (f.tensor.dtype, f.tensor.shape, read(f.tensor)) for f in verdict.findings}
    assert found == {truth.name: (truth.dtype, truth.shape, truth.data) for truth in pristine.tensors}


@every_kind
def test_the_truth_is_what_the_libraries_of_the_formats_read(name: str) -> None:
    pristine = PRISTINE[name]
    seen = 0
    for file, kind in pristine.kinds.items():
        data = pristine.files[file]
        if kind in (Kind.ZIP, Kind.LEGACY):
            tree = torch.load(io.BytesIO(data), weights_only=True)
        elif kind in (Kind.SAFETENSORS, Kind.SELF_PROVING):
            tree = safetensors.torch.load(data)
        else:
            continue
        for truth in (truth for truth in pristine.tensors if truth.file == file):
            value = tree
            for key in truth.path[1:] if truth.path[0] == "training" else truth.path:
                value = value[int(key) if not isinstance(value, dict) or key.isdigit() else key]
            assert truth.shape == tuple(value.shape)
            assert truth.data == value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            seen += 1
    assert seen == len(pristine.tensors)


@every_kind
def test_what_is_called_surviving_is_there(name: str) -> None:
    pristine = PRISTINE[name]
    for case in cases_of(pristine):
        contents = {file: case.content(file) for file in case.files}
        for truth in pristine.tensors:
            wanted = pristine.files[truth.file][truth.start : truth.end]
            spots = case.spots(truth.file, truth.start, truth.end)
            assert all(contents[file][at : at + len(wanted)] == wanted for file, at in spots)
            assert spots or truth.start == truth.end or due(case, truth, True) is Due.NOTHING


@every_kind
def test_nothing_is_due_of_what_is_gone_and_everything_of_what_is_whole(name: str) -> None:
    pristine = PRISTINE[name]
    gone = Case("gone", pristine, "", pristine.target, dict.fromkeys(pristine.files, ()), True)
    whole = {file: (Keep(file, 0, len(data)),) for file, data in pristine.files.items()}
    same = Case("same", pristine, "", pristine.target, whole, True)
    proves = not {Kind.SAFETENSORS, Kind.LEGACY} & set(pristine.kinds.values())
    for truth in pristine.tensors:
        assert due(gone, truth, True) is Due.NOTHING
        proven = proves and truth.start < truth.end
        assert due(same, truth, False) is (Due.PROVEN if proven else Due.RECOVERED)


# the score itself can fail --------------------------------------------------------------------------------------------


def test_a_verify_that_calls_everything_whole_fails() -> None:
    def blind(path: Path) -> Verdict:
        verdict = verify(path)
        findings = tuple(replace(finding, state=State.WHOLE) for finding in verdict.findings)
        return replace(verdict, state=State.WHOLE, findings=findings)

    for name in ("torch zip, plain", "safetensors, plain"):
        results = _few(name, verify=blind)
        assert sum(result.score.missed for result in results) >= len(results) - _refused(results)
        assert sum(result.score.wrongly_right for result in results) > 0


def test_a_verify_that_stumbles_or_touches_the_file_fails() -> None:
    def stumble(path: Path) -> Verdict:
        raise IndexError("at the end of the file")

    def touch(path: Path) -> Verdict:
        with path.open("ab") as file:
            file.write(b"!")
        return verify(path)

    assert all(result.score.crashes == 1 for result in _few("torch legacy, plain", verify=stumble))
    assert all(result.score.touched == 1 for result in _few("torch legacy, plain", verify=touch))


def test_a_salvage_that_forgets_a_tensor_fails() -> None:
    def forgetful(path: Path, out: Path, template: Template | None) -> Rescue:
        rescue = salvage(path, out, template=template)
        _edit(out / "weights.safetensors", lambda tensors: tensors.popitem())
        return rescue

    results = _few("torch zip, plain", salvage=forgetful)
    assert sum(result.score.lost for result in results) > 0
    assert not any(result.score.wrongly_right for result in results)


def test_a_salvage_that_changes_a_bit_fails() -> None:
    def careless(path: Path, out: Path, template: Template | None) -> Rescue:
        rescue = salvage(path, out, template=template)
        _edit(out / "weights.safetensors", lambda tensors: next(iter(tensors.values())).reshape(-1)[:1].neg_())
        return rescue

    results = _few("torch zip, plain", salvage=careless)
    assert sum(result.score.wrongly_right for result in results) > 0


def test_the_command_names_what_fails_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chosen = "safetensors, plain / something else"

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["damage.py", *options])
        with pytest.raises(SystemExit) as exit_:
            damage.main()
        return int(exit_.value.code or 0)

    assert run("--only", chosen, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["total"]["files"] == figures["total"]["found"] > 5
    assert run("--only", chosen) == 0
    assert "something else" in capsys.readouterr().out
    monkeypatch.setattr(damage, "score_corpus", _all_crash)
    assert run("--only", chosen, "--show", "1") == 1
    shown = capsys.readouterr().err
    name = shown.split("--make '")[1].split("'")[0]
    monkeypatch.setattr(sys, "argv", ["damage.py", "--make", name, "--out", str(tmp_path / "made")])
    damage.main()
    case = next(case for case in corpus() if case.name == name)
    assert (tmp_path / "made" / "model.safetensors").read_bytes() == case.content("model.safetensors")


def _all_crash(seed: int, workers: int, only: str) -> list[Result]:
    results = [Result(case) for case in corpus(seed) if only in case.name]
    for result in results:
        result.fail("crashes", "on purpose")
    return results


def _few(name: str, **sabotage: object) -> list[Result]:
    """Results for every ninth case that damages the file, with a part of the code replaced by a worse one."""
    return score_cases(list(cases_of(PRISTINE[name]))[::9], **sabotage)


def _refused(results: list[Result]) -> int:
    return sum(result.score.found for result in results)


def _edit(path: Path, change: object) -> None:
    if path.exists():
        tensors = safetensors.torch.load(path.read_bytes())
        change(tensors)
        path.write_bytes(safetensors.torch.save(tensors))


def _write(pristine: Pristine, folder: Path) -> Path:
    whole = {file: (Keep(file, 0, len(data)),) for file, data in pristine.files.items()}
    write_case(Case("", pristine, "", pristine.target, whole, True), folder / "whole")
    return folder / "whole" / pristine.target if pristine.target != "." else folder / "whole"
