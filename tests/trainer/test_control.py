import threading
import time
from typing import Any

import pytest

from chomp.errors import Interrupted
from chomp.system.signals import Signals
from chomp.trainer.control import LocalControl, run_control
from chomp.trainer.stop_and_save import StopAndSaveRequests, StopOrSaveRequest

SIGTERM = 15


def test_a_batch_is_not_drawn_once_a_stop_was_requested(make_run: Any):
    run = make_run()
    data = run.components.data
    control = run_control(run.context.coordinator, data, run.signals, None)
    control.next_batch()
    before = data.get_state()
    run.signals.hear(SIGTERM)
    with pytest.raises(Interrupted):
        control.next_batch()
    assert data.get_state() == before


def test_work_is_left_when_a_stop_is_requested(make_run: Any):
    run = make_run()
    control = LocalControl(run.components.data.train, StopAndSaveRequests(run.signals))
    assert control.unless_stopped(max, 3, 5) == control.on_leader("work", max, 3, 5) == 5
    done = threading.Event()
    threading.Timer(0.1, run.signals.hear, [SIGTERM]).start()
    start = time.perf_counter()
    with pytest.raises(Interrupted):
        control.unless_stopped(done.wait, 20.0)
    assert time.perf_counter() - start < 5.0
    done.set()
    with pytest.raises(Interrupted):
        control.check_stop()


def test_minutes_and_signals_ask_for_checkpoints():
    signals = Signals()
    requests = StopAndSaveRequests(signals, save_minutes=0.1 / 60)
    assert requests.own() == StopOrSaveRequest()
    time.sleep(0.15)
    assert requests.own() == StopOrSaveRequest(None, True, False)
    requests.checkpoint_saved()
    assert requests.own() == StopOrSaveRequest()
    requests.accept(StopOrSaveRequest(signalled=True))
    assert requests.own() == StopOrSaveRequest(None, False, True)
    requests.accept(StopOrSaveRequest(stop=SIGTERM))
    assert requests.own() == StopOrSaveRequest(SIGTERM, False, True)
    requests.checkpoint_saved()
    assert requests.own() == StopOrSaveRequest(SIGTERM, False, False)
