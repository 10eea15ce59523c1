import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    XLMRobertaTokenizer,
)

from mobile_vla.core import ActionContract, CheckpointError, ConfigError, UnsafeCheckpointError
from mobile_vla.policy.clip_lstm import ClipLstmConfig, ClipLstmNetwork
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.kosmos import KosmosTower
from mobile_vla.policy.encoders.sources import CLIP, KOSMOS, describe, load_weights
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.kosmos_clip import KosmosClipConfig, KosmosClipNetwork
from mobile_vla.policy.kosmos_lstm import KosmosLstmConfig, KosmosLstmNetwork

TEXTS = ["go to the red cup", "stop"]
FROM_THE_HUB = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def kosmos_tokenizer() -> Any:
    marks = ["<image>", "</image>", "<grounding>"]
    letters = [(f"{space}{letter}", -3.0) for letter in "abcdefghijklmnopqrstuvwxyz" for space in ("", "▁")]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    tokenizer = XLMRobertaTokenizer(vocab=vocab)
    tokenizer.add_tokens(marks, special_tokens=True)
    return tokenizer


def clip_tokenizer() -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[])


def save_all(folder: Path, model: Any, tokenizer: Any, **options: Any) -> Path:
    """As a hub's folder is: by the libraries' own means."""
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(FROM_THE_HUB))
    return folder


def small_kosmos() -> Any:
    config = describe("tiny", "kosmos").config
    config["text_config"]["vocab_size"] = len(kosmos_tokenizer())
    torch.manual_seed(1)
    return Kosmos2ForConditionalGeneration(Kosmos2Config.from_dict(config)).eval()


@pytest.fixture(scope="module")
def kosmos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_all(tmp_path_factory.mktemp("hub") / "kosmos", small_kosmos(), kosmos_tokenizer())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = clip_tokenizer()
    config = describe("tiny", "clip").config
    end = tokenizer.eos_token_id
    config["text_config"] |= {"vocab_size": len(tokenizer), "eos_token_id": end, "pad_token_id": end}
    torch.manual_seed(2)
    return save_all(tmp_path_factory.mktemp("hub") / "clip", CLIPModel(CLIPConfig.from_dict(config)).eval(), tokenizer)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(describe("tiny", "kosmos").tokenizer))
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "pad_token_id": 1},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    torch.manual_seed(3)
    return save_all(tmp_path_factory.mktemp("hub") / "siglip", SiglipModel(config).eval(), tokenizer)


def tower_of(folder: Path, place: str) -> KosmosTower | ClipTower:
    spec = describe(str(folder), place)
    side = spec.config["vision_config"]["image_size"]
    torch.manual_seed(9)
    return KosmosTower(spec, (side, side)) if place == "kosmos" else ClipTower(spec, (side, side))


@torch.inference_mode()
def answers(tower: KosmosTower | ClipTower) -> torch.Tensor:
    rows, columns = (cells * 16 for cells in tower.grid)
    pixels = torch.randint(256, (2, rows, columns, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    tower.eval()
    return tower.ask(tower.see(pixels), tower.read(tower.tokenise(TEXTS)))


@pytest.fixture(params=["kosmos", "clip", "siglip"])
def each(request: pytest.FixtureRequest) -> tuple[Path, str]:
    return request.getfixturevalue(request.param), "kosmos" if request.param == "kosmos" else "clip"


def test_a_folder_gives_the_answers_of_the_model_that_was_saved(each: tuple[Path, str]) -> None:
    folder, place = each
    tower = tower_of(folder, place)
    before = answers(tower)
    learns = {name: parameter.requires_grad for name, parameter in tower.named_parameters()}
    load_weights(tower)
    classes = {"kosmos": Kosmos2ForConditionalGeneration, "clip": CLIPModel, "siglip": SiglipModel}
    saved = classes[folder.name].from_pretrained(folder).state_dict()
    for name, value in tower.model.state_dict().items():
        assert torch.equal(value, saved[name]), name
    after = answers(tower)
    assert not torch.allclose(before, after, atol=1e-3)
    assert {name: parameter.requires_grad for name, parameter in tower.named_parameters()} == learns
    other = tower_of(folder, place)
    lacking, unexpected = other.model.load_state_dict(saved, strict=False)
    assert (lacking, set(unexpected) <= {"text_model.lm_head.weight"}) == ([], True)
    assert torch.equal(answers(other), after)


def test_the_description_is_that_of_the_folder(each: tuple[Path, str]) -> None:
    folder, place = each
    spec = describe(str(folder), place)
    assert (list(spec.mean), list(spec.std)) == (FROM_THE_HUB["image_mean"], FROM_THE_HUB["image_std"])
    assert Tokenizer.from_str(spec.tokenizer).encode("stop").ids


def changed(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def test_each_tensor_that_is_missing_unexpected_or_of_another_shape_is_named(
    each: tuple[Path, str], tmp_path: Path
) -> None:
    folder, place = each
    names = sorted(name for name in load_file(folder / "model.safetensors") if "vision" in name and "fc" in name)
    lost, reshaped = names[0], names[1]

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[lost]
        tensors[reshaped] = torch.zeros(3)
        tensors["vision_model.of.nobody"] = torch.zeros(2)

    tower = tower_of(changed(folder, tmp_path / "x", change), place)
    with pytest.raises(CheckpointError) as refusal:
        load_weights(tower)
    said = str(refusal.value)
    for what in (f"1 missing ({lost})", "1 unexpected (vision_model.of.nobody)", f"1 of another shape ({reshaped})"):
        assert what in said


def test_shards_are_as_good_as_one_file(kosmos: Path, tmp_path: Path) -> None:
    whole = tower_of(kosmos, "kosmos")
    load_weights(whole)
    folder = save_all(tmp_path / "k", small_kosmos(), kosmos_tokenizer(), max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    tower = tower_of(folder, "kosmos")
    load_weights(tower)
    assert torch.equal(answers(tower), answers(whole))
    next(iter(folder.glob("model-00002*"))).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(tower_of(folder, "kosmos"))


def as_pickle(folder: Path, target: Path, **more: Any) -> Path:
    shutil.copytree(folder, target)
    torch.save({**load_file(target / "model.safetensors"), **more}, target / "pytorch_model.bin")
    (target / "model.safetensors").unlink()
    return target


def test_pickled_weights_are_read_without_running_them(clip: Path, tmp_path: Path) -> None:
    whole, tower = tower_of(clip, "clip"), tower_of(as_pickle(clip, tmp_path / "p"), "clip")
    load_weights(whole)
    load_weights(tower)
    assert torch.equal(answers(tower), answers(whole))

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(UnsafeCheckpointError):
        load_weights(tower_of(as_pickle(clip, tmp_path / "trap", trap=Trap()), "clip"))
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_lacks_something_is_named_with_what_it_needs(clip: Path, tmp_path: Path) -> None:
    for name, said in (
        ("preprocessor_config.json", "preprocessor_config"),
        ("config.json", "holds no config.json"),
        ("model.safetensors", "holds no weights"),
    ):
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(clip, folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"{said}.*give a folder that holds config.json, weights"):
            load_weights(tower_of(folder, "clip"))


def test_a_model_of_another_type_and_an_unknown_name_are_refused(clip: Path) -> None:
    with pytest.raises(ConfigError, match="'clip', and kosmos needs kosmos-2"):
        describe(str(clip), "kosmos")
    with pytest.raises(ConfigError, match="did you mean tiny"):
        describe("tinny", "clip")
    with pytest.raises(ConfigError, match=f"did you mean {CLIP}"):
        describe("clip-vit-base-patch32", "clip")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub at which nobody listens, and nothing in the cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_hub_one_sentence_says_what_to_do(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(CheckpointError) as refusal:
        describe(KOSMOS, "kosmos")
    said = str(refusal.value)
    assert "\n" not in said
    assert f"{KOSMOS} cannot be had" in said
    assert f"hf download {KOSMOS}" in said
    assert ("HF_HUB_OFFLINE is set" in said) == offline


@pytest.mark.parametrize("pickled", [False, True])
def test_what_is_in_the_cache_is_used_without_the_hub(
    empty_cache: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", pickled)
    place = empty_cache / f"models--{CLIP.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    (place / "snapshots").mkdir()
    (as_pickle if pickled else shutil.copytree)(clip, place / "snapshots" / ("a" * 40))
    spec = describe(CLIP, "clip")
    tower = ClipTower(spec, (96, 96))
    load_weights(tower)
    ours = tower_of(clip, "clip")
    load_weights(ours)
    assert spec.source == CLIP
    assert torch.equal(answers(tower), answers(ours))


def full(tokenizer: str, **towers: Any) -> dict[str, TowerSpec]:
    return {
        name: TowerSpec("full", config.to_dict(), tokenizer, (0.5,) * 3, (0.5,) * 3) for name, config in towers.items()
    }


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_full_sizes_have_the_parameters_that_are_published() -> None:
    text = describe("tiny", "kosmos").tokenizer
    contract = ActionContract(horizon=10)
    both = full(text, kosmos=Kosmos2Config(), clip=CLIPConfig())
    with torch.device("meta"):
        hybrid = KosmosClipNetwork(KosmosClipConfig(), contract, both)
        alone = KosmosLstmNetwork(KosmosLstmConfig(), contract, full(text, kosmos=Kosmos2Config()))
        light = ClipLstmNetwork(ClipLstmConfig(), contract, full(text, clip=CLIPConfig()))
    assert parameters(hybrid.towers["kosmos"].model) == 1_664_485_376
    assert parameters(hybrid.towers["clip"].model) == 151_277_313
    counts = {network.kind: parameters(network) for network in (hybrid, alone, light)}
    assert counts == COUNTS


COUNTS = {"kosmos_clip": 1_860_017_026, "kosmos_lstm": 1_705_395_841, "clip_lstm": 189_472_386}
"""With the default configuration and chunks of ten."""
