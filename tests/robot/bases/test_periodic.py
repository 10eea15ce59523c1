import threading

from mobile_vla.robot.bases.periodic import Periodic


def test_it_repeats_until_it_is_closed(until):
    rounds = []
    periodic = Periodic("p", 0.001, lambda: rounds.append(1))
    assert until(lambda: len(rounds) > 5)
    periodic.close()
    count = len(rounds)
    assert not any(thread.name == "p" for thread in threading.enumerate())
    assert len(rounds) == count


def test_it_ends_when_told_so_by_its_action_or_by_an_error(until, caplog):
    def fail():
        raise OSError("unheard of")

    for action in (lambda: False, fail):
        periodic = Periodic("q", 0.001, action)
        assert until(lambda: not any(thread.name == "q" for thread in threading.enumerate()))
        periodic.close()
    assert "unheard of" in caplog.text


def test_it_may_be_closed_from_within(until):
    box = []
    box.append(Periodic("r", 0.01, lambda: box and box[0].close()))
    assert until(lambda: not any(thread.name == "r" for thread in threading.enumerate()))
