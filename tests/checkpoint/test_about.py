import os
from datetime import datetime, timezone

import pytest

from mobile_vla.checkpoint.about import about_foreign, about_ours, json_of, model_of_config
from mobile_vla.checkpoint.manifest import read_manifest

from . import folders


@pytest.fixture
def ours(tmp_path):
    return folders.save_ours(tmp_path / "final", step=300, metric=("see validation loss", 0.25, "lower"))


def evaluated(folder, **changes):
    result = {"weights_sha256": read_manifest(folder).identity, "name": "success", "value": 0.956, "better": "higher"}
    folders.write_json(folder / "evaluation.json", result | changes)
    return about_ours(folder)


def test_a_manifest_tells_all(ours):
    about = about_ours(ours)
    assert (about.model, about.policy, about.step, about.dated_by) == ("compact", "compact", 300, "manifest")
    assert (about.metric.name, about.metric.value, about.metric.better) == ("see validation loss", 0.25, "lower")
    assert (about.measured, about.salvaged) == (False, False)
    assert abs((datetime.now(timezone.utc) - about.saved_at).total_seconds()) < 3600


def test_what_was_measured_of_these_weights_counts_more_than_what_training_told(ours):
    about = evaluated(ours)
    assert (about.metric.name, about.metric.value, about.measured) == ("success", 0.956, True)


@pytest.mark.parametrize(
    "change", [{"weights_sha256": "00"}, {"value": "high"}, {"better": "bigger"}, {"name": None}, {"value": None}]
)
def test_what_was_measured_of_others_or_is_no_measurement_does_not_count(ours, change):
    about = evaluated(ours, **change)
    assert (about.metric.name, about.measured) == ("see validation loss", False)


def test_without_its_manifest_the_config_tells_the_policy_and_the_files_the_date(ours):
    (ours / "manifest.json").unlink()
    for path in ours.iterdir():
        os.utime(path, (86400, 86400))
    about = about_ours(ours)
    assert (about.policy, about.step, about.metric) == ("compact", None, None)
    assert (about.saved_at, about.dated_by) == (datetime(1970, 1, 2, tzinfo=timezone.utc), "file time")
    (ours / "config.json").write_text("[")
    assert about_ours(ours).policy is None


@pytest.mark.parametrize("marks", [{"missing": ("a",)}, {"unproven": ("config.json",)}])
def test_a_salvaged_one_is_marked(tmp_path, marks):
    assert about_ours(folders.save_ours(tmp_path / "s", **marks)).salvaged


def test_a_report_of_a_salvage_marks_what_lies_beside_it(ours):
    folders.write_json(ours / "salvage.json", {"missing": []})
    assert about_ours(ours).salvaged
    assert about_foreign(ours / "weights.safetensors", {}, []).salvaged
    assert not about_foreign(ours / "other.pth", {}, []).salvaged


def test_lerobot_tells_type_and_step(tmp_path):
    root = folders.lerobot_run(tmp_path)
    about = about_foreign(root / "checkpoints/005000/pretrained_model/model.safetensors", {}, [])
    assert (about.model, about.step, about.metric) == ("act", 5000, None)


def test_hugging_face_tells_type_step_and_the_metric_of_its_best(tmp_path):
    root = folders.huggingface_run(tmp_path)
    about = about_foreign(root / "checkpoint-1000" / "model.safetensors", {}, [])
    assert (about.model, about.step) == ("kosmos-2", 1000)
    assert (about.metric.name, about.metric.value, about.metric.better) == ("eval_loss", 0.5, "lower")
    (root / "checkpoint-1000").rename(root / "another")
    assert about_foreign(root / "another" / "model.safetensors", {}, []).metric is None


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"type": "act"}, "act"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "clip"),
        ({"architectures": ["CLIPModel"]}, "CLIPModel"),
        ({"_class_name": "UNet2DModel"}, "UNet2DModel"),
        ({"type": 3, "architectures": "x"}, None),
        ({"model_type": "a\x1b[2J"}, None),
        ([], None),
    ],
)
def test_a_config_tells_the_model(tmp_path, config, model):
    folders.write_json(tmp_path / "config.json", config)
    assert model_of_config(tmp_path) == model


def test_an_adapter_tells_what_it_adapts(tmp_path):
    folders.write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "m/kosmos"})
    assert model_of_config(tmp_path) == "LORA of m/kosmos"


@pytest.mark.parametrize(
    ("name", "step", "metric"),
    [
        ("epoch=3-step=1200-val_loss=0.12.ckpt", 1200, ("val_loss", 0.12, "lower")),
        ("epoch=3-step=1200-val_acc=0.9-v1.ckpt", 1200, ("val_acc", 0.9, "higher")),
        ("epoch=12-val_loss=-1.5e-3.ckpt", None, ("val_loss", -0.0015, "lower")),
        ("epoch=3-size=12.ckpt", None, None),
        ("model_step_5000.pt", 5000, None),
        ("checkpoint-700.pth", 700, None),
        ("ckpt_12000.pt", 12000, None),
        ("resnet50.pth", None, None),
        ("last.ckpt", None, None),
    ],
)
def test_names_tell_step_and_metric(tmp_path, name, step, metric):
    about = about_foreign(tmp_path / name, {}, [])
    seen = about.metric and (about.metric.name, about.metric.value, about.metric.better)
    assert (about.step, seen) == (step, metric)


def test_what_stands_in_the_file_counts_more_than_its_name(tmp_path):
    about = about_foreign(tmp_path / "step_5.ckpt", {"global_step": 700, "epoch": 3}, ["visual_projection.weight"])
    assert about.step == 700
    assert about.model is None
    assert about_foreign(tmp_path / "x.pt", {"step": True}, ["x.diffusion_step_encoder.1.weight"]).step is None


def test_names_of_tensors_tell_the_model_where_no_config_does(tmp_path):
    names = ["diffusion.unet.diffusion_step_encoder.1.weight"]
    assert about_foreign(tmp_path / "model.safetensors", {}, names).model == "diffusion policy"
    folders.write_json(tmp_path / "config.json", {"type": "diffusion"})
    assert about_foreign(tmp_path / "model.safetensors", {}, names).model == "diffusion"


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 9999, '"x"'])
def test_notes_that_cannot_be_read_tell_nothing(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert json_of(tmp_path / "x.json") == {}
    assert json_of(tmp_path / "none.json") == json_of(tmp_path) == {}
