import types

import pytest

import absent
from absent import TESTS


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("policy/conftest.py", {"torch"}),  # itself
        ("cli/test_train.py", {"torch", "mujoco", "tensorboard"}),  # inside its functions
        ("train/test_run.py", {"torch", "mujoco"}),  # through a helper beside it
        ("sim/test_route.py", {"mujoco"}),  # through our own package
        ("safety/test_envelope.py", set()),
        ("checkpoint/test_store.py", set()),
        ("test_absent.py", set()),
    ],
)
def test_what_a_test_module_needs_is_read_from_its_imports(module, needed):
    found = absent.needs(TESTS / module)
    assert needed <= found
    assert bool(needed) == bool(found)


def test_every_room_of_a_robot_has_tests_that_need_no_optional_part():
    rooms = "checkpoint core data doctor language record robot ros runtime safety teleop"
    for room in rooms.split():
        conftest = TESTS / room / "conftest.py"
        assert not (conftest.exists() and absent.needs(conftest)), room
        assert any(not absent.needs(path) for path in (TESTS / room).rglob("test_*.py")), room


@pytest.fixture
def without(monkeypatch):
    """Reads as if these modules were not installed."""

    def pretend(*modules):
        monkeypatch.setattr(absent, "ABSENT", frozenset(modules))
        absent.lacks.cache_clear()

    yield pretend
    absent.lacks.cache_clear()


def test_where_all_is_installed_nothing_is_left_out(without):
    without()
    assert absent.left_out() == {}
    assert absent.sentences() == []


def test_what_is_left_out_is_said_with_its_reason(without):
    without("tensorboard")
    left_out = {str(path) for path in absent.left_out()}
    assert "train/test_curves.py" in left_out
    assert "train/test_see.py" not in left_out
    assert any(
        line.startswith("train, for lack of tensorboard: ") and "test_curves.py" in line for line in absent.sentences()
    )


def test_a_folder_is_left_out_with_its_conftest(without):
    without("torch")
    assert absent.lacks(TESTS / "policy") == {"torch"}
    assert not absent.lacks(TESTS / "core")
    assert any(line == "policy, for lack of torch: all of it" for line in absent.sentences())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from torch import nn", {"torch.nn"}),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", set()),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", {"typing.TYPE_CHECKING"}),
        ("def draw():\n    import torch", set()),
        ("class A:\n    import torch", {"torch"}),
        ("with open('x'):\n    import torch", {"torch"}),
    ],
)
def test_only_what_loading_imports_is_counted(source, found, tmp_path):
    (tmp_path / "helper.py").write_text(source)
    assert absent._imports(tmp_path / "helper.py", everywhere=False) == found


@pytest.mark.parametrize(("missing", "left"), [((), ["plain", "in another process"]), (("torch",), ["plain"])])
def test_a_test_can_say_itself_what_it_needs(missing, left, without, request):
    without(*missing)

    class Item:
        def __init__(self, name, *marks):
            self.name, self.marks = name, marks

        def iter_markers(self, name):
            return [mark.mark for mark in self.marks if mark.name == name]

    items = [Item("plain"), Item("in another process", pytest.mark.needs("torch"))]
    deselected = []
    reporter = types.SimpleNamespace(
        hook=types.SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    )
    root_conftest(request).pytest_collection_modifyitems(reporter, items)
    assert [item.name for item in items] == left
    assert len(items) + len(deselected) == 2


def root_conftest(request):
    manager = request.config.pluginmanager
    return next(each for each in manager.get_plugins() if getattr(each, "__file__", None) == str(TESTS / "conftest.py"))
