from mobile_vla.record.plan import default_plan
from mobile_vla.sim.scenarios import ROUTES


def test_the_default_plan_has_the_simulators_names_in_its_order():
    assert tuple(cell.name for cell in default_plan().cells) == ROUTES
