import pytest


@pytest.fixture
def root(tmp_path):
    """A made-up machine: files by their paths below its root."""

    class Root:
        path = tmp_path / "machine"

        def write(self, name, text=""):
            file = self.path / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return file

    made = Root()
    made.path.mkdir()
    return made
