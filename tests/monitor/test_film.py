import av
import numpy as np
import pytest

from mobile_vla.monitor import film as module
from mobile_vla.monitor.film import Film
from mobile_vla.monitor.overhead import Overhead
from mobile_vla.sim.scene import Pose

ABOVE = Overhead(np.full((200, 240, 3), 90, np.uint8), 40.0)


@pytest.mark.parametrize("encoder", [encoder for encoder in module._ENCODERS if encoder[0] != "h264"])
def test_a_second_of_film_is_a_second_of_the_drive(tmp_path, make_tick, monkeypatch, encoder):
    monkeypatch.setattr(module, "_ENCODERS", (encoder,))
    with Film(tmp_path / "film.mp4", ABOVE, "go to the red cup", 10.0) as film:
        for step in (0, 1, 2, 5, 20):  # steps may be left out
            film.add(make_tick(step * 100_000_000), Pose(0.1 * step, 0.0, 0.3))
    with av.open(str(tmp_path / "film.mp4")) as made:
        frames = list(made.decode(video=0))
    assert [round(float(frame.pts * frame.time_base) * 10) for frame in frames] == [0, 1, 2, 5, 20]


def test_what_was_filmed_before_an_error_can_be_watched(tmp_path, make_tick):
    def interrupted():
        with Film(tmp_path / "film.mp4", ABOVE, "한국어", 10.0) as film:
            film.add(make_tick(0), Pose(0, 0, 0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with av.open(str(tmp_path / "film.mp4")) as made:
        assert len(list(made.decode(video=0))) == 1
