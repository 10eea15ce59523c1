import av
import numpy as np
import pytest

from mobile_vla.core import ActionContract, DatasetError
from mobile_vla.data import Dataset, EpisodeWriter, schema
from mobile_vla.data.images import encode
from mobile_vla.record.drivers import Driver
from mobile_vla.record.film import Strip, strip_of, write_film

FRAMES = 12


def strip():
    pixels = np.full((60, 101, 3), 90, dtype=np.uint8)
    actions = np.zeros((FRAMES, 3), dtype=np.float32)
    actions[6:, 0] = 0.6
    return Strip([encode(pixels)] * FRAMES, actions, actions / 2, [Driver.OPERATOR] * FRAMES)


def pictures(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.average_rate), [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def test_a_second_of_film_is_a_second_of_the_episode_and_the_bars_grow_with_the_action(tmp_path):
    path = tmp_path / "film.mp4"
    write_film(path, strip(), ActionContract())
    rate_hz, shown = pictures(path)
    assert (rate_hz, len(shown)) == (5.0, FRAMES)
    assert shown[0].shape[1] == 640
    assert shown[0].shape[0] % 2 == 0

    def yellow(picture):
        panel = picture[-120:].astype(int)
        return np.count_nonzero((panel[..., 0] > 180) & (panel[..., 2] < 90))

    assert yellow(shown[-1]) > 10 * max(1, yellow(shown[0]))
    assert [each.name for each in tmp_path.iterdir()] == ["film.mp4"]


def test_an_episode_of_the_simulator_has_a_film_too(tmp_path):
    with EpisodeWriter(tmp_path / "data", ActionContract(), (8, 16, 3), {}) as writer, writer.episode("go", {}) as one:
        for k in range(3):
            one.add(
                {
                    schema.IMAGE_FRONT: np.zeros((8, 16, 3), np.uint8),
                    schema.STATE: np.zeros(3),
                    schema.ACTION: np.zeros(3),
                    schema.CAPTURE_NS: k,
                    schema.SEQUENCE: k,
                }
            )
    episode = Dataset.open(tmp_path / "data").episode(0)
    write_film(tmp_path / "film.mp4", strip_of(episode), ActionContract())
    assert len(pictures(tmp_path / "film.mp4")[1]) == 3
    episode.path.write_bytes(b"")
    with pytest.raises(DatasetError, match="episode 0"):
        strip_of(Dataset.open(tmp_path / "data", skip_damaged=True).episode(0))
