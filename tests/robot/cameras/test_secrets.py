import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.robot.cameras.secrets import without_secrets

words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=6, max_size=12)


@given(words, words, st.sampled_from(["rtsp", "http"]))
def test_user_and_password_are_never_shown(user, password, scheme):
    shown = without_secrets(f"cannot open {scheme}://{user}:{password}@camera.local:554/stream")
    assert shown == f"cannot open {scheme}://***@camera.local:554/stream"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtspsrc location=rtsp://a:b@c/1 ! decodebin", "rtspsrc location=rtsp://***@c/1 ! decodebin"),
        ("http://host/video?user=me&password=pw&size=2", "http://host/video?user=***&password=***&size=2"),
        ("rtspsrc location=rtsp://c user-id=me user-pw=pw !", "rtspsrc location=rtsp://c user-id=*** user-pw=*** !"),
        ("rtsp://u:p@ss@host/x", "rtsp://***@host/x"),
        ("videotestsrc ! video/x-raw,width=64", "videotestsrc ! video/x-raw,width=64"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_what_is_no_secret_stays(text, shown):
    assert without_secrets(text) == shown
