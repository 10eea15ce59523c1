import os
import signal
import threading

import pytest

from mobile_vla.record.interrupt import SIGNALS, interruptible


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_the_event_and_the_handlers_of_before_come_back(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    over = threading.Event()
    with interruptible(over):
        os.kill(os.getpid(), number)
        assert over.wait(30.0)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_ctrl_c_interrupts():
    over = threading.Event()
    with interruptible(over):
        os.kill(os.getpid(), signal.SIGINT)
        assert over.wait(30.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_leaves_signals_alone():
    before = [signal.getsignal(each) for each in SIGNALS]
    seen = []

    def inside():
        with interruptible(threading.Event()):
            seen.extend(signal.getsignal(each) for each in SIGNALS)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == before
