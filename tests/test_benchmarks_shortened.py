"""The tables of ``benchmarks/shortened.py``, on a small policy that has learnt nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import shortened
from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.policy.heads import HeadConfig
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.shorten import Shortening, shorten
from mobile_vla.policy.vla import VlaNetwork
from mobile_vla.policy.weights import save_network

SETTING = "patches=0.5 latents=0.5"


def network(name: str = "kosmos_lstm", width: int = 192) -> VlaNetwork:
    kind = kind_named(name)
    towers = dict.fromkeys(kind.config.towers, "tiny")
    torch.manual_seed(1)
    head = HeadConfig("lstm", 0, 24, 1, (24,))
    return kind.make(kind.config(height=96, width=width, pointer=16, head=head, **towers), ActionContract())


def test_the_full_size_is_counted_and_layers_are_in_proportion() -> None:
    full = shortened.full_size()
    assert sum(each.numel() for each in full.parameters()) == 1_860_017_026
    assert shortened.depths(full) == (24, 24)
    how = Shortening(decoder_layers=1, patches=0.5, after_layer=1)
    assert shortened.in_proportion(how, network(), full) == Shortening(12, None, 0.5, 1.0, 12)
    whole = shortened.counted(full)
    assert whole.flops == pytest.approx(420e9, rel=0.01)  # field notes, section 7
    half = shortened.counted(shorten(full, Shortening(decoder_layers=12)))
    assert whole.flops - half.flops == pytest.approx(0.5 * 241e9, rel=0.02)
    assert whole.weight_bytes - half.weight_bytes == pytest.approx(2 * 12 * 50.4e6, rel=0.01)


def test_fewer_tokens_read_the_same_weights() -> None:
    small = network()
    whole, fewer = shortened.saved(small), shortened.saved(shorten(small, Shortening(patches=0.25, latents=0.25)))
    assert fewer["flops"] < whole["flops"]
    assert fewer["weight_bytes"] == pytest.approx(whole["weight_bytes"], rel=0.01)


def test_a_policy_without_a_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="clip_lstm has no decoder"):
        shortened.depths(network("clip_lstm"))


@pytest.fixture
def threads() -> Iterator[None]:
    """Put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_it_drives_whole_and_shortened_in_the_same_scenes_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(tmp_path / "policy", network(), {})
    monkeypatch.setattr(shortened, "GROUPS", {"manoeuvres": shortened.GROUPS["manoeuvres"]})
    full = network("kosmos_clip", width=96)
    monkeypatch.setattr(shortened, "full_size", lambda: full)
    asked = shortened.Asked(tmp_path / "policy", 2, tmp_path / "out")
    rows = shortened.measure(asked, [SETTING])
    assert [row["setting"] for row in rows] == ["", SETTING]
    assert [row["success"]["total"] for row in rows] == [2, 2]
    assert rows[0]["difference"]["value"] == 0
    assert rows[1]["reduced"]["flops"] < rows[0]["reduced"]["flops"]
    assert capsys.readouterr().err.count("\n") == 4
    assert shortened.measure(asked, [SETTING]) == rows
    assert capsys.readouterr().err == ""
    table = shortened.markdown(json.loads(json.dumps(rows)), shortened.parts(full))
    assert f"`{SETTING}`" in table
    assert "(memory)" in table
