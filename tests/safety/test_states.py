import pytest

from mobile_vla.safety import Reason, SafetyState
from mobile_vla.safety.states import EMERGENCIES, PROTECTIVE, TRANSITIONS, Event, Finding, state_after

R, H, P, E = SafetyState.RUNNING, SafetyState.HOLDING, SafetyState.PROTECTIVE_STOP, SafetyState.EMERGENCY_STOP


def test_the_ways_between_the_states_are_these_and_no_others():
    ways = {(before, after) for (before, _), after in TRANSITIONS.items()}
    assert ways == {(R, H), (R, P), (R, E), (H, R), (H, P), (H, E), (P, H), (P, E), (E, P)}


@pytest.mark.parametrize("state", SafetyState)
@pytest.mark.parametrize("event", Event)
def test_only_a_person_leads_out_of_a_stop_and_nothing_leads_from_a_stop_to_running(state, event):
    after = state_after(state, event)
    if after.severity < state.severity:
        assert (event, state) in {(Event.RECOVERED, H), (Event.RESUME, P), (Event.REARM, E)}
    if state.is_stop:
        assert after is not R
    if event in (Event.HOLD, Event.PROTECT, Event.EMERGENCY):
        led_to = {Event.HOLD: H, Event.PROTECT: P, Event.EMERGENCY: E}[event]
        assert after is max(state, led_to, key=lambda each: each.severity)


def test_the_states_in_the_order_of_their_severity():
    assert [state.severity for state in (R, H, P, E)] == [0, 1, 2, 3]
    assert [state.is_stop for state in (R, H, P, E)] == [False, False, True, True]
    assert [state.value for state in (R, H, P, E)] == ["running", "holding", "protective_stop", "emergency_stop"]


def test_every_reason_leads_to_one_state():
    by_state = {state: {reason.value for reason in Reason if reason.state is state} for state in SafetyState}
    assert by_state == {
        R: {"driving"},
        H: {
            "recovering", "idle", "no_frame", "frame_too_old", "frame_repeated", "no_command", "command_too_old",
            "clock_not_advancing", "loop_late", "no_heartbeat", "range_too_old", "obstacle",
        },
        P: {
            "non_finite_command", "frame_in_the_future", "feedback_lost", "command_flood", "held_too_long",
            "policy_failed", "camera_failed", "base_failed", "node_lost", "taken_over", "rearmed",
        },
        E: {"emergency_stop", "heartbeat_lost"},
    }  # fmt: skip
    assert not EMERGENCIES & PROTECTIVE


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        (Reason.DRIVING, Event.RECOVERED),
        (Reason.IDLE, Event.HOLD),
        (Reason.NODE_LOST, Event.PROTECT),
        (Reason.HEARTBEAT_LOST, Event.EMERGENCY),
    ],
)
def test_a_finding_is_an_event(reason, event):
    assert Finding(reason, "because").event is event
