"""The template, filled in by hand as its comments say, is a mapping that imports."""

import yaml

from mobile_vla.data.imports import import_data, open_source, template


def test_a_filled_in_template_imports_what_lerobot_wrote(lerobot, tmp_path, answers):
    root = lerobot("video")
    text = template(open_source(root, "lerobot").contents)
    blank = yaml.safe_load(text)
    assert blank["camera"]["column"] == answers["camera"]["column"]
    for line in ("# every: 6", "# outside: clip", "# instruction: {task: true}", "10 in the source"):
        assert line in text
    text = text.replace("# every: 6 ", "every: 2 ").replace("# instruction: {task: true}", "instruction: {task: true}")
    text = text.replace("\ninstruction:\n", "\n").replace("channel_order: ", "channel_order: rgb")
    for key, value in answers["contract"].items():
        text = text.replace(f"  {key}: ", f"  {key}: {value} ", 1)
    for axis in ("linear_x", "linear_y", "angular_z"):
        for section in ("action", "state"):
            filled = yaml.safe_dump(answers[section][axis], default_flow_style=True).strip()
            text = text.replace(f"  {axis}: {{column: , name: , unit: , positive: }}", f"  {axis}: {filled}", 1)
    values = yaml.safe_load(text)
    assert values == answers
    assert import_data(root, "lerobot", tmp_path / "ours", values).frames == 10
