import inspect

import pytest

from mobile_vla.core import MobileVLAError, errors

ERRORS = [item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ERRORS)
def test_the_command_line_can_print_every_error_as_one_sentence(error):
    assert issubclass(error, MobileVLAError)
    assert error.__doc__
