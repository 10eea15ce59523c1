"""The folder's papers."""

import json
from pathlib import Path

import pytest

from mobile_vla.engine.jetson.build_engine.cuda import BuildError
from mobile_vla.engine.jetson.build_engine.finish import DRAFT, forget, read_draft, record, write


def test_a_draft_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"draft\.json cannot be read .*mobile-vla export --for jetson made"):
        read_draft(tmp_path)
    for data in ("{", "[]", '{"format": 1, "files": 3}'):
        (tmp_path / DRAFT).write_text(data)
        with pytest.raises(BuildError, match="cannot be understood"):
            read_draft(tmp_path)
    (tmp_path / DRAFT).write_text(json.dumps({"format": 2, "files": {}}))
    with pytest.raises(BuildError, match="of another version"):
        read_draft(tmp_path)


def test_a_file_is_written_whole_or_not(tmp_path: Path) -> None:
    write(tmp_path / "file", b"new")
    assert record(tmp_path / "file")["size"] == 3
    (tmp_path / "folder").mkdir()
    with pytest.raises(BuildError, match="cannot be written"):
        write(tmp_path / "folder", b"data")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
    forget(tmp_path)
    forget(tmp_path)
