"""Kinds come from entry points: here of a package that is laid out on a path of its own."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, MonotonicClock
from mobile_vla.robot import registry

MODULE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Spyglass:
    lenses: int = 2
    rate_hz: float = 10.0

    def build(self, clock):
        return (self, clock)

class NoSettings:
    pass
"""

ENTRIES = """
[mobile_vla.cameras]
spyglass = harbour_lab:Spyglass
lost = harbour_lab:Gone
absent = harbour_lab_that_is_not_installed:Spyglass
plain = harbour_lab:NoSettings

[mobile_vla.bases]
raft = harbour_lab:Spyglass
"""


def lay_out(folder, name, module=MODULE, entries=ENTRIES):
    (folder / "harbour_lab.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    lay_out(tmp_path, "harbour-lab")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("harbour_lab", None)


def test_our_own_kinds_are_found():
    assert {"pattern", "usb", "file", "folder", "stream", "gstreamer"} <= set(registry.camera_kinds())


def test_a_laboratory_adds_its_kinds_and_ours_stay(laboratory):
    clock = MonotonicClock()
    settings, given_clock = registry.make_camera("spyglass", {"lenses": 3, "rate_hz": 5}, clock)
    assert (settings.lenses, settings.rate_hz) == (3, 5.0)
    assert isinstance(settings.rate_hz, float)
    assert given_clock is clock
    assert registry.make_base("raft", {}, clock)[0].lenses == 2
    assert {"pattern", "spyglass"} <= set(registry.camera_kinds())
    assert "raft" in registry.base_kinds()


def test_a_kind_that_cannot_be_imported_is_logged_and_hides_no_other(laboratory, caplog):
    assert "lost" not in registry.camera_kinds()
    assert "harbour_lab:Gone" in caplog.text
    assert "harbour_lab_that_is_not_installed" in caplog.text


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("spyglas", {}, r"no kind of camera called 'spyglas'; did you mean spyglass\?"),
        ("zzz", {}, "known are absent, file"),
        ("lost", {}, r"'lost' \(harbour_lab:Gone\) cannot be imported"),
        ("absent", {}, "cannot be imported: No module named .*; install what it needs"),
        ("plain", {}, "no dataclass with a method build"),
        ("spyglass", {"lens": 3}, r"camera spyglass has no setting lens; did you mean lenses\?"),
        ("spyglass", {"lenses": "three"}, "the setting lenses of camera spyglass is 'three'; it needs a whole number"),
        ("spyglass", {"rate_hz": True}, "the setting rate_hz of camera spyglass is True; it needs a number"),
        ("spyglass", [], "need keys and values"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(laboratory, kind, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        registry.make_camera(kind, settings, MonotonicClock())


def test_a_package_that_lies_on_the_path_but_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    with pytest.raises(ConfigError, match=r"called 'pattern'; none is known: .* not installed, run pip install -e \."):
        registry.camera_settings("pattern", {})


def test_a_kind_that_two_packages_claim_is_refused(laboratory, tmp_path):
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[mobile_vla.cameras]\nspyglass = other:Spyglass\n")
    with pytest.raises(ConfigError, match="claimed by harbour_lab:Spyglass and other:Spyglass"):
        registry.camera_settings("spyglass", {})


@dataclass(frozen=True)
class Part:
    length_m: float
    kind: Literal["long", "short"] = "long"


@dataclass(frozen=True)
class Whole:
    folder: Path = Path()
    other: Path | None = None
    triple: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rows: tuple[tuple[float, float], ...] = ()
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    limit_s: float | None = None
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        if self.limit_s is not None and self.limit_s < 0:
            raise ConfigError("limit_s needs to be at least 0")


def test_plain_values_become_what_the_fields_say():
    values = {
        "folder": "/data/run",
        "other": "/data/other",
        "triple": [1, 2.5, 3],
        "rows": [[1, 2], [3, 4]],
        "part": {"length_m": 1},
        "parts": [{"length_m": 2, "kind": "short"}],
        "limit_s": 4,
        "numbers": {"a": 1},
    }
    assert registry.read_settings(Whole, values, "the whole") == Whole(
        Path("/data/run"),
        Path("/data/other"),
        (1.0, 2.5, 3.0),
        ((1.0, 2.0), (3.0, 4.0)),
        Part(1.0),
        (Part(2.0, "short"),),
        4.0,
        {"a": 1},
    )
    assert isinstance(registry.read_settings(Whole, values, "the whole").triple[0], float)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"part": {"lenght_m": 1.0}}, r"the whole has no setting part.lenght_m; did you mean part.length_m\?"),
        ({"parts": [{"length_m": 1.0}, {"size": 1}]}, r"no setting parts\[1\].size; known are kind, length_m"),
        ({"part": {}}, "the whole needs a value for part.length_m"),
        ({"parts": [{"length_m": 1.0, "kind": "odd"}]}, "is 'odd'; it needs 'long' or 'short'"),
        ({"parts": ["odd"]}, "parts"),
        ({"part": "odd"}, "is 'odd'; it needs keys and values or nothing"),
        ({"triple": [1.0, 2.0]}, r"triple of the whole is \[1.0, 2.0\]; it needs three numbers in a list"),
        ({"rows": 3}, "is 3; it needs a list"),
        ({"limit_s": "soon"}, "is 'soon'; it needs a number or nothing"),
        ({"folder": 3}, "is 3; it needs a path"),
        ({"limit_s": -1}, "the whole: limit_s needs to be at least 0"),
        ({"numbers": {"a": "b"}}, "numbers"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        registry.read_settings(Whole, values, "the whole")


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers())))
def test_whatever_is_given_it_is_read_or_refused_in_a_sentence(values):
    said = ""
    try:
        whole = registry.read_settings(Whole, values, "the whole")
    except ConfigError as error:
        whole, said = None, str(error)
    assert isinstance(whole, Whole) or "the whole" in said
