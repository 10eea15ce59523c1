import resource
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mobile_vla.train.curves import Curves


def points(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, value.tensor.float_val[0])
        for path in sorted(folder.iterdir())
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def test_tensorboard_reads_what_was_added_also_when_nothing_was_closed(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add({"loss": 0.5, "hit": 1.0}, 0)
    curves.add({"loss": 0.25}, 50)
    assert points(tmp_path) == [("loss", 0, 0.5), ("hit", 0, 1.0), ("loss", 50, 0.25)]
    curves.__exit__(None, None, None)
    with Curves(tmp_path) as again:
        again.add({"loss": 0.125}, 100)
    assert points(tmp_path)[-1] == ("loss", 100, 0.125)
    assert len(list(tmp_path.iterdir())) == 2


def test_without_room_they_end_with_one_line_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Curves(tmp_path) as curves:
        curves.add({"loss": 0.5}, 0)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
            curves.add({"loss": 0.4}, 50)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        curves.add({"loss": 0.3}, 100)
    assert points(tmp_path) == [("loss", 0, 0.5)]
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "ends at step 50" in said
