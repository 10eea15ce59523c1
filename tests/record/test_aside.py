import threading
import time

from mobile_vla.record.aside import Aside

LIMIT_S = 60.0


def test_calls_are_carried_out_in_order_before_the_end():
    done = []
    with Aside(lambda: done.append("lost")) as aside:
        for k in range(50):
            aside.do(lambda k=k: done.append(k))
    assert done == list(range(50))


def test_a_call_that_waits_holds_up_nobody_and_the_end_is_bounded():
    free, done = threading.Event(), []
    began = time.monotonic()
    with Aside(lambda: None) as aside:
        aside.do(lambda: free.wait(LIMIT_S))
        for k in range(1000):
            aside.do(lambda k=k: done.append(k))
        assert not done
    assert time.monotonic() - began < LIMIT_S / 2
    free.set()
    aside._calls.put(None, timeout=LIMIT_S)
    aside._thread.join(LIMIT_S)
    assert not aside._thread.is_alive()
    assert done == list(range(len(done)))
    assert 199 <= len(done) <= 200  # the waiting call was taken out or not when the rest came


def test_a_terminal_that_is_gone_is_told_once():
    lost = []

    def fail():
        raise OSError(5, "Input/output error")

    with Aside(lambda: lost.append(1)) as aside:
        for _ in range(5):
            aside.do(fail)
    assert lost == [1]
