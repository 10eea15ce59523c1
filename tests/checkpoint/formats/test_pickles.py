import argparse
import collections
import pickle
import pickletools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats.inert import Global, RefusedError
from mobile_vla.checkpoint.formats.pickles import DEFAULT_LIMITS, interpret
from mobile_vla.checkpoint.formats.torch_pickle import read_torch_pickle
from mobile_vla.core import CheckpointError
from mobile_vla.core.errors import DamagedCheckpointError, UnsafeCheckpointError

from .absurd import ABSURD, DAMAGED
from .malicious import EVIL, HOSTILE, INNOCENT, WATCH, Raw, called, encode, name, prove, walked, whole

SOURCE = Path("model.pt")
PROTOCOLS = range(6)


def value_of(data, table=None, **more):
    return interpret(data, SOURCE, table or {}, **more).value


def test_the_watch_sees_what_it_is_there_for(tmp_path):
    with WATCH as events:
        pickle.loads(whole(name("os", "getcwd")))
        eval("1")
        (tmp_path / "made").mkdir()
    assert {event for event, _ in events} >= {"compile", "exec", "pickle.find_class", "os.mkdir"}


def test_there_are_many_kinds():
    assert len(HOSTILE) >= 150
    assert len({case.name for case in HOSTILE}) == len(HOSTILE)
    assert len({case.culprit for case in HOSTILE}) >= 100


@pytest.mark.needs("torch")  # in the process that runs the payloads
def test_python_itself_runs_every_payload(tmp_path):
    proofs = prove(tmp_path)
    assert set(proofs) == {case.name for case in HOSTILE + INNOCENT if case.runnable}
    assert [each.name for each in INNOCENT if proofs[each.name] != "nothing"] == []
    assert [case.name for case in HOSTILE if proofs.get(case.name) == "nothing"] == []
    assert list(proofs.values()).count("ran") >= 130


@pytest.mark.parametrize("read", [value_of, lambda data: read_torch_pickle(data, SOURCE)], ids=["pickle", "torch"])
@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_no_payload_does_anything_here(case, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with WATCH as events, pytest.raises(UnsafeCheckpointError) as caught:
        read(case.data)
    assert events == []
    assert list(tmp_path.iterdir()) == []
    if case.name.startswith("BUILD of a class"):
        assert not hasattr(argparse.Namespace, "planted")
    torch_only = read is value_of and caught.value.culprit.startswith("torch.")
    assert torch_only or caught.value.culprit == case.culprit or (not case.culprit and caught.value.culprit)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "case", [case for case in HOSTILE if re.fullmatch(r"[\w.]+", case.culprit)], ids=lambda case: case.name
)
def test_a_user_may_let_them_stand_as_records_and_still_nothing_runs(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opaque = [case.culprit] if "." in case.culprit else []
    opaque += [
        f"{each}.*" for each in ("os", "posix", "builtins", "functools", "types", "operator", "ctypes", "pathlib")
    ]
    with WATCH as events:
        try:
            found = read_torch_pickle(case.data, SOURCE, opaque)
            assert found.tensors == ()
        except (UnsafeCheckpointError, DamagedCheckpointError):
            pass
    assert events == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("what", "data", "kind", "part"), ABSURD, ids=[each[0] for each in ABSURD])
def test_absurd_pickles_are_refused_in_bounded_time(what, data, kind, part):
    with pytest.raises(DamagedCheckpointError if kind == DAMAGED else UnsafeCheckpointError) as caught:
        read_torch_pickle(data, SOURCE)
    assert part in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_pickletools_reads_names_that_the_unpickler_does_not():
    # Why text arguments are read here and not there
    theirs = [arg for opcode, arg, _ in pickletools.genops(b"cbuiltins\nev\\x61l\n.") if opcode.name == "GLOBAL"]
    assert theirs == ["builtins eval"]
    with pytest.raises(UnsafeCheckpointError) as caught:
        value_of(b"cbuiltins\nev\\x61l\n.", opaque=["builtins.eval"])
    assert caught.value.culprit == "builtins.ev\\x61l"


def test_a_name_with_dots_is_one_name():
    plain, dotted = whole(walked("torch", "os.system"), 4), whole(walked("torch.os", "system"), 4)
    for data in (plain, dotted):
        with pytest.raises(UnsafeCheckpointError, match=r"torch\.os\.system"):
            value_of(data, {"torch": None, "torch.os": None, "os.system": None})
    # Two spellings of one full name: only the one without a walk is ours
    assert value_of(whole(walked("torch.os", "system"), 4), {"torch.os.system": None}) == Global("torch.os", "system")
    with pytest.raises(UnsafeCheckpointError):
        value_of(plain, {"torch.os.system": None})


def test_a_table_decides_what_a_call_makes():
    table = {"net.double": lambda args: ("doubled", *args), "net.Name": None}
    assert value_of(whole(called(name("net", "double"), 4, "x")), table) == ("doubled", 4, "x")
    assert value_of(whole(name("net", "Name")), table) == Global("net", "Name")
    with pytest.raises(UnsafeCheckpointError, match="mere name"):
        value_of(whole(called(name("net", "Name"))), table)

    def refusing(args):
        raise RefusedError("it asks for too much")

    with pytest.raises(UnsafeCheckpointError, match=r"its pickle asks for too much.*\(net.double\)"):
        value_of(whole(called(name("net", "double"))), {"net.double": refusing})


def test_persistent_ids_go_to_the_caller():
    assert value_of(whole(["a", Raw(encode("w0") + b"Q")]), persistent=lambda key: f"<{key}>") == ["a", "<w0>"]
    assert value_of(b"Pw0\n.", persistent=lambda key: f"<{key}>") == "<w0>"


def test_records_keep_all_that_the_file_says():
    data = whole(
        Raw(called(name("net", "Config"), 1).code + encode({"lr": 2}) + b"b(K\x01K\x02e(" + encode("k") + b"K\x03u")
    )
    got = interpret(data, SOURCE, {}, opaque=["net.*"])
    record = got.value
    assert (record.origin, record.args, record.state, record.items, record.pairs) == (
        "net.Config",
        (1,),
        {"lr": 2},
        [1, 2],
        {"k": 3},
    )
    assert got.opaque_globals_met == ("net.Config",)


@pytest.mark.parametrize(
    ("pattern", "full", "fits"),
    [
        ("net.Config", "net.Config", True),
        ("net.*", "net.Config", True),
        ("net.*", "net.deep.Config", True),
        ("net.Config", "net.Config2", False),
        ("net.*", "network.Config", False),
        ("net.deep.*", "net.Config", False),
    ],
)
def test_opaque_patterns(pattern, full, fits):
    data = whole(name(*full.rsplit(".", 1)))
    if fits:
        assert value_of(data, opaque=[pattern]).full == full
    else:
        with pytest.raises(UnsafeCheckpointError):
            value_of(data, opaque=[pattern])


@pytest.mark.parametrize("pattern", ["*", "*.*", "net", "", ".*", "net.*.Config", "net.Conf*", "os.system; x"])
def test_patterns_of_another_form_are_refused(pattern):
    with pytest.raises(CheckpointError, match="module"):
        value_of(whole(1), opaque=[pattern])


keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()) | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(keys)
        | st.frozensets(keys)
    ),
    max_leaves=30,
)


def same(left, right):
    """Equal, and of the same types all the way down, which ``==`` alone does not ask."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, list | tuple):
        return all(map(same, left, right))
    return not isinstance(left, dict) or all(same(left[key], right[key]) for key in left)


@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_as_it_was(value, protocol):
    data = pickle.dumps(value, protocol)
    got = interpret(data + b"more", SOURCE, {})
    assert same(got.value, value)
    assert got.consumed_bytes == len(data)
    assert got.opaque_globals_met == ()
    assert same(value_of(pickletools.optimize(data)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_that_hold_themselves(protocol):
    itself = []
    itself.append(itself)
    got = value_of(pickle.dumps(itself, protocol))
    assert got[0] is got
    looped = {}
    looped["me"] = looped
    got = value_of(pickle.dumps(looped, protocol))
    assert got["me"] is got
    inner = []
    pair = (inner, 1)
    inner.append(pair)
    got = value_of(pickle.dumps(pair, protocol))
    assert got[0][0] is got


def complaint(data):
    """The text of one of our two errors, empty where there is none; any other error fails the test."""
    try:
        read_torch_pickle(data, SOURCE)
    except (UnsafeCheckpointError, DamagedCheckpointError) as error:
        return str(error)
    return ""


@given(plain, st.sampled_from(PROTOCOLS), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_damage_gives_no_other_error(value, protocol, data):
    sound = pickle.dumps({"weights": [collections.OrderedDict(a=value), np.float32(1)], "more": value}, protocol)
    broken = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    assert complaint(bytes(broken)).isprintable()


@given(st.binary() | st.lists(st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes])).map(b"".join))
def test_noise_gives_no_other_error(noise):
    for data in (noise, b"\x80\x04" + noise + b"."):
        assert complaint(data).isprintable()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere_is_damaged(protocol):
    data = pickle.dumps({"a": [1, 2.5, "text", b"bytes", {3}, (None, True)], "b": 10**40}, protocol)
    for end in range(len(data)):
        with pytest.raises(DamagedCheckpointError):
            value_of(data[:end])


def test_several_pickles_one_after_the_other():
    parts = [1, "two", {"three": [3]}]
    data = b"".join(pickle.dumps(part, 2) for part in parts)
    got = []
    while data:
        pickled = interpret(data, SOURCE, {})
        got.append(pickled.value)
        data = data[pickled.consumed_bytes :]
    assert got == parts


def test_what_follows_the_stop_is_left_alone():
    assert interpret(whole(1) + whole(EVIL), SOURCE, {}).consumed_bytes == len(whole(1))
    assert value_of(whole(1) + b".....") == 1


@pytest.mark.parametrize(
    ("limit", "fits", "exceeds"),
    [
        ("pickle_bytes", "x" * 10, "x" * 1000),
        ("opcodes", [1] * 10, [1] * 1000),
        ("depth", [[[]]], None),
        ("memo", [[], []], [[] for _ in range(1000)]),
        ("integer_digits", 10**20, 10**900),
        ("built_bytes", [[]], [[each] for each in range(1000)]),
        ("odd_keys", {1: 1}, dict.fromkeys(range(1000))),
    ],
)
def test_every_limit_holds(limit, fits, exceeds):
    if exceeds is None:
        exceeds = []
        for _ in range(300):
            exceeds = [exceeds]
    limits = replace(DEFAULT_LIMITS, **{limit: 200 if limit == "depth" else 500})
    for protocol in PROTOCOLS:
        assert value_of(pickle.dumps(fits, protocol), limits=limits) == fits
        value_of(pickle.dumps(exceeds, protocol))
        with pytest.raises(UnsafeCheckpointError):
            value_of(pickle.dumps(exceeds, protocol), limits=limits)


def test_numbers_in_text():
    assert value_of(b"I01\n.") is True
    assert value_of(b"I00\n.") is False
    assert value_of(b"Finf\n.") == float("inf")
    assert value_of(b"F-1e-05\n.") == -1e-05
