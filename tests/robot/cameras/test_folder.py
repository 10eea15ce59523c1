import numpy as np
import pytest
from PIL import Image

from mobile_vla.core import CameraError, ConfigError
from mobile_vla.robot.cameras.drawing import Drawing, read_numbers
from mobile_vla.robot.cameras.folder import images_in
from mobile_vla.robot.registry import make_camera

from ..conformance import CameraConformance
from .waiting import next_frame, next_frames, until

DRAWING = Drawing(96, 64, seed=1)


def images(folder, count, suffix=".png"):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(DRAWING.picture(number)).save(folder / f"frame_{number}{suffix}")
    return folder


class TestFolder(CameraConformance):
    @pytest.fixture
    def camera(self, clock, tmp_path):
        settings = {"path": str(images(tmp_path / "images", 5)), "rate_hz": 20, "loop": True}
        camera = make_camera("folder", settings, clock)
        yield camera
        camera.close()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".BMP", ".webp"])
def test_images_come_by_the_numbers_in_their_names_and_then_end(clock, opened, tmp_path, suffix):
    folder = images(tmp_path / "images", 12, suffix)
    (folder / "notes.txt").write_text("not an image")
    camera = opened(make_camera("folder", {"path": str(folder), "pace": 0}, clock))
    assert [read_numbers(frame.pixels)[0] for frame in next_frames(camera, 12)] == list(range(12))
    with pytest.raises(CameraError, match="have ended: set loop"):
        until(lambda: camera.read(0.1))


def test_names_without_numbers_are_ordered_too(tmp_path):
    for name in ("b.png", "a10.png", "a9.png", "a.png", "1.png"):
        (tmp_path / name).touch()
    assert [path.name for path in images_in(tmp_path)] == ["1.png", "a9.png", "a10.png", "a.png", "b.png"]


def test_grey_images_and_images_with_alpha_become_rgb(clock, opened, tmp_path):
    Image.new("L", (20, 10), 77).save(tmp_path / "1.png")
    Image.new("RGBA", (20, 10), (1, 2, 3, 255)).save(tmp_path / "2.png")
    camera = opened(make_camera("folder", {"path": str(tmp_path), "pace": 0}, clock))
    assert np.array_equal(next_frame(camera).pixels[0, 0], [77, 77, 77])
    assert np.array_equal(next_frame(camera).pixels[0, 0], [1, 2, 3])


def test_an_image_of_another_size_ends_it(clock, opened, tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "1.png")
    Image.new("RGB", (30, 10)).save(tmp_path / "2.png")
    camera = opened(make_camera("folder", {"path": str(tmp_path), "pace": 0}, clock))
    assert next_frame(camera)
    with pytest.raises(CameraError, match=r"2.png has 30x10 pixels, the images before it 20x10"):
        until(lambda: camera.read(0.1))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "holds no image: the names need to end in .bmp"),
        (lambda folder: (folder.mkdir(), (folder / "1.png").write_bytes(b"no png")), "cannot be read as an image"),
    ],
)
def test_folders_that_cannot_be_opened_say_why(clock, tmp_path, make, sentence):
    make(tmp_path / "images")
    camera = make_camera("folder", {"path": str(tmp_path / "images")}, clock)
    with pytest.raises(CameraError, match=sentence):
        camera.open()


@pytest.mark.parametrize("wrong", [{"pace": float("inf")}, {"rate_hz": -1.0}, {"name": " "}])
def test_settings_that_cannot_be_are_refused(wrong, clock):
    with pytest.raises(ConfigError):
        make_camera("folder", {"path": "images"} | wrong, clock)
