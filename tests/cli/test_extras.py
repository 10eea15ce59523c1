import re
from importlib.metadata import packages_distributions, requires
from importlib.util import find_spec

import pytest

from mobile_vla.cli.extras import MODULES, missing_extra


def absent(module):
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        return error
    raise AssertionError(f"{module} is installed")


def extra_of(distribution):
    """The extra in pyproject.toml that asks for it; None for another."""
    for line in requires("mobile-vla"):
        name, _, marker = line.partition(";")
        if re.match(r"[\w.-]+", name)[0].lower().replace("_", "-") == distribution.lower().replace("_", "-"):
            extra = re.search(r"extra == ['\"](\w+)['\"]", marker)
            return extra[1] if extra else None
    return None


def test_the_table_is_that_of_pyproject():
    brought_by = packages_distributions()
    for module in filter(find_spec, MODULES):
        assert MODULES[module] in {extra_of(name) for name in brought_by[module]}


@pytest.mark.parametrize(("module", "extra"), MODULES.items())
def test_the_sentence_names_the_module_and_the_line_that_installs_it(module, extra):
    said = missing_extra(ModuleNotFoundError(f"No module named '{module}.parts'", name=f"{module}.parts"))
    assert module in said
    assert f'pip install -e ".[{extra}]"' in said
    assert "\n" not in said


def test_other_modules_are_none_of_ours():
    assert missing_extra(absent("surely_not_installed")) is None
    assert missing_extra(ModuleNotFoundError("nameless")) is None
