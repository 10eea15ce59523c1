import argparse
import collections
import datetime
import pathlib
import pickle
import types
from pathlib import Path

import numpy as np
import pytest

from mobile_vla.checkpoint.formats.inert import Global, Opaque
from mobile_vla.checkpoint.formats.pickles import interpret

from .malicious import WATCH

PROTOCOLS = range(6)


def value_of(data):
    return interpret(data, Path("model.pt"), {}).value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=0.1, layers=[1, 2]),
        types.SimpleNamespace(lr=0.1),
        pathlib.PurePosixPath("/runs/a"),
        datetime.datetime(2026, 11, 22, 16, 0, tzinfo=datetime.timezone.utc),
        datetime.timedelta(seconds=3),
        collections.OrderedDict(a=1, b=2),
        collections.defaultdict(list, {"a": [1]}),
        collections.Counter("hello"),
        collections.deque([1, 2], maxlen=3),
        np.zeros((2, 3), dtype=np.float32),
        np.array(["a", None], dtype=object),
        np.dtype("float32"),
        np.float32,
        np.random.default_rng(1),
        np.random.RandomState(1),
        range(3),
        slice(1, 2),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_companions_of_weights_are_inert(value, protocol):
    data = pickle.dumps(value, protocol)
    with WATCH as events:
        got = value_of(data)
    assert events == []
    assert isinstance(got, Opaque | Global)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_records_of_containers_hold_their_content(protocol):
    ordered = collections.OrderedDict(a=1)
    ordered.extra = {"version": 2}
    record = value_of(pickle.dumps(ordered, protocol))
    assert (record.origin, record.pairs, record.state) == (
        "collections.OrderedDict",
        {"a": 1},
        {"extra": {"version": 2}},
    )
    assert value_of(pickle.dumps(collections.Counter("aab"), protocol)).pairs == {"a": 2, "b": 1}
    assert value_of(pickle.dumps(collections.defaultdict(list, a=[1]), protocol)).pairs == {"a": [1]}
    assert value_of(pickle.dumps(collections.deque([1, 2], 5), protocol)).items == [1, 2]
    assert value_of(pickle.dumps(argparse.Namespace(lr=1), protocol)).state == {"lr": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "uint64", "float16", "float32", ">f8", "float64"])
def test_numpy_numbers_are_plain_numbers(dtype, protocol):
    number = np.array([1], dtype=dtype)[0]
    got = value_of(pickle.dumps(number, protocol))
    assert got == 1
    assert type(got) in (bool, int, float)


def test_texts_of_python_2():
    assert value_of(b"\x80\x02}q\x01U\x06weightq\x02K\x07s.") == {"weight": 7}
    assert value_of(b"(dp0\nS'a\\x62\\n'\np1\nL7L\ns.") == {"ab\n": 7}
    assert value_of(b"c__builtin__\nset\n((ltR.") == set()
    assert (
        value_of(b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR.").origin
        == "argparse.Namespace"
    )
