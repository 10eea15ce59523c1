from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mobile_vla.core import ConfigError
from mobile_vla.engine.bench.counting import PRECISIONS
from mobile_vla.engine.bench.pictures import COLOURS, Point, latency_picture, roofline_picture
from mobile_vla.engine.bench.roofline import ARITHMETIC, PREDICTED, Device

pytestmark = pytest.mark.needs("matplotlib")

LAPTOP = Device(
    "a laptop", "cpu", 1, 30e9, 150e9, {"fp32": 200e9, "bf16": 400e9, "int8": 900e9}, True, 16 * 2**30, 32 * 2**20
)
POINTS = [Point("eager", 4.5e6, 277e6, 3.2e-3, "fp32"), Point("OpenVINO", 2.3e6, 277e6, 0.76e-3, "bf16")]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def near(picture, colour):
    """Pixels of about this colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return int((np.abs(picture.astype(int) - wanted).max(axis=2) < 12).sum())


def texts(monkeypatch):
    """All that a picture says, as it is drawn."""
    from matplotlib.figure import Figure

    said = []
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        from matplotlib.text import Text

        said.extend(each.get_text() for each in figure.findobj(Text))
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return said


def test_latencies_say_median_and_tail(tmp_path, monkeypatch):
    said = texts(monkeypatch)
    rng = np.random.default_rng(1)
    samples = {"eager": rng.normal(3.2, 0.1, 500).tolist(), "OpenVINO": [*rng.normal(0.8, 0.05, 499).tolist(), 40.0]}

    latency_picture(samples, tmp_path / "latency.png")

    picture = pixels(tmp_path / "latency.png")
    assert picture.shape[1] > picture.shape[0]
    assert near(picture, COLOURS["fp32"]) > 1000
    assert any("p50 3." in each and "500 calls" in each and "beyond" not in each for each in said)
    assert any("1 beyond the edge (longest 40 ms)" in each for each in said)
    assert {"eager", "OpenVINO"} <= set(said)


@pytest.mark.parametrize("samples", [{}, {"none": []}])
def test_no_sample_is_refused_in_words(samples, tmp_path):
    with pytest.raises(ConfigError, match="time at least one call"):
        latency_picture(samples, tmp_path / "latency.png")
    assert not (tmp_path / "latency.png").exists()


def test_equal_samples_can_be_drawn(tmp_path):
    latency_picture({"always the same": [2.0]}, tmp_path / "latency.png")

    assert near(pixels(tmp_path / "latency.png"), COLOURS["fp32"]) > 100


def test_a_roofline_says_how_near_each_point_comes(tmp_path, monkeypatch):
    said = texts(monkeypatch)

    roofline_picture(LAPTOP, POINTS, tmp_path / "roofline.png")

    picture = pixels(tmp_path / "roofline.png")
    for name in LAPTOP.matrix_flops_per_s:
        assert near(picture, COLOURS[name]) > 300
    assert any("3.2 ms, 43 % of the limit" in each for each in said)  # 86.6 of 200 GFLOP/s
    assert any("0.76 ms, 91 % of the limit" in each for each in said)
    assert {"memory 30 GB/s", "cache 150 GB/s", "bf16 400 GFLOP/s", "a laptop: measured, 1 thread"} <= set(said)


def test_below_the_slope_the_memory_is_the_limit(tmp_path, monkeypatch):
    said = texts(monkeypatch)
    too_large_for_the_cache = Point("large", 64e6, 64e6, 4e-3, "fp32")

    roofline_picture(LAPTOP, [too_large_for_the_cache], tmp_path / "roofline.png")

    assert any("53 % of the limit" in each for each in said)  # 16 of 30 GB/s


@pytest.mark.parametrize("name", ["h200", "orin-nx-16gb"])
def test_predictions_are_named_as_such(name, tmp_path, monkeypatch):
    said = texts(monkeypatch)

    roofline_picture(PREDICTED[name], [Point("x", 3.3e9, 420e9, 0.05, "bf16")], tmp_path / "roofline.png")

    assert any("a prediction" in each for each in said)
    assert (tmp_path / "roofline.png").stat().st_size > 10_000


@pytest.mark.parametrize("count", [6, 20])
@pytest.mark.parametrize("ms", [2.0, 2000.0])
def test_points_at_one_place_keep_their_names_apart(count, ms, tmp_path, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation, Text

    boxes = []

    def savefig(figure, out):
        renderer = FigureCanvasAgg(figure).get_renderer()
        names = [each for each in figure.findobj(Annotation) if "of the limit" in each.get_text()]
        boxes.extend(Text.get_window_extent(each, renderer) for each in names)  # without the leader

    monkeypatch.setattr(Figure, "savefig", savefig)
    same = [Point(f"engine {number}", 4.5e6, 277e6, ms * 1e-3, "fp32") for number in range(count)]

    roofline_picture(LAPTOP, same, tmp_path / "roofline.png")

    heights = sorted((box.y0, box.y1) for box in boxes)
    assert len(heights) == count
    assert all(below[1] <= above[0] for below, above in pairwise(heights))


def test_a_precision_without_a_roof_is_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match="a laptop has no matrix rate for fp8"):
        roofline_picture(LAPTOP, [Point("x", 1.0, 1.0, 1.0, "fp8")], tmp_path / "roofline.png")
    assert not (tmp_path / "roofline.png").exists()


def test_every_arithmetic_has_a_colour_of_its_own():
    assert set(COLOURS) == set(ARITHMETIC)
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert {precision.arithmetic for precision in PRECISIONS.values()} <= set(COLOURS)
