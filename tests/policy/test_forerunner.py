import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, PreTrainedTokenizerFast

from mobile_vla.core import (
    ActionContract,
    CheckpointError,
    ConfigError,
    Frame,
    Instruction,
    Observation,
    Status,
    Twist,
    UnsafeCheckpointError,
)
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.forerunner import LAYOUTS, contract_of, import_checkpoint
from mobile_vla.policy.vla import VlaPolicy
from mobile_vla.policy.weights import load_policy, save_network

HORIZON, WINDOW, SIDE = 4, 3, 96
AXES = ("linear_x", "linear_y")
WORDS = "go to the red cup"
CONTRACT = contract_of(AXES, (1.15, 1.15), 6.0, 6.0, HORIZON)


class Original(nn.Module):
    """What such a network computes, put together from the papers' parts and by the names of its authors' code.

    Kosmos-2's parts are called one after another, and picture and action token are given as embeddings.
    """

    def __init__(self, decoder: str, outputs: int, hidden: int = 16, layers: int = 2) -> None:
        super().__init__()
        spec = describe("tiny", "kosmos")
        self.backbone = Kosmos2ForConditionalGeneration(Kosmos2Config.from_dict(spec.config))
        self.tokenizer = Tokenizer.from_str(spec.tokenizer)
        self.spec = spec
        width = self.backbone.config.text_config.embed_dim
        self.action_token = nn.Parameter(torch.randn(width))
        head: Any = nn.Module()
        head.rnn = nn.LSTM(width, hidden, layers, batch_first=True)
        widths = [hidden, 24, 20, 12, outputs]
        steps: list[nn.Module] = []
        for inputs, results in pairwise(widths):
            steps += [nn.Linear(inputs, results), nn.ReLU()]
        inside = nn.Module()
        inside.mlp = nn.Sequential(*steps[:-1], nn.Tanh())
        setattr(head, decoder, inside)
        self.act_head, self.decoder = head, decoder

    def answer(self, pixels: np.ndarray, words: str) -> Tensor:
        """The action token's last hidden state of one frame (H, W, 3): (width,)."""
        planes = torch.from_numpy(pixels).float().div(255).permute(2, 0, 1)
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.spec.mean, self.spec.std))
        vision = self.backbone.vision_model
        patches = vision.model.post_layernorm(vision(pixel_values=((planes - mean) / std)[None])[0])
        latents, _ = self.backbone.image_to_text_projection(nn.functional.normalize(patches, dim=-1))
        embed = self.backbone.text_model.get_input_embeddings()
        number = self.tokenizer.token_to_id
        ids = self.tokenizer.encode(words, add_special_tokens=False).ids
        before, after = torch.tensor([[number("<s>")]]), torch.tensor([ids])
        sequence = torch.cat([embed(before), latents, embed(after), self.action_token[None, None]], dim=1)
        hidden = self.backbone.text_model.model(inputs_embeds=sequence).last_hidden_state
        return hidden[0, -1]

    def forward(self, frames: list[np.ndarray], words: str) -> Tensor:
        """Shares of the limits after the last frame, (horizon, axes)."""
        features = torch.stack([self.answer(frame, words) for frame in frames])
        remembered, _ = self.act_head.rnn(features[None])
        return getattr(self.act_head, self.decoder).mlp(remembered[0, -1]).unflatten(0, (HORIZON, -1))


def original(layout: str = "forerunner", axes: int = 2) -> Original:
    torch.manual_seed(5)
    return Original(LAYOUTS[layout].split(".")[1], HORIZON * axes).eval()


def lightning(network: Original, path: Path, change: Callable[[dict[str, Any]], Any] = lambda state: None) -> Path:
    """As Lightning saves it."""
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    change(state)
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": [{"m": torch.zeros(5)}]}, path)
    return path


@pytest.fixture(scope="module")
def kosmos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as of a hub, of the same sizes with other weights."""
    folder = tmp_path_factory.mktemp("hub") / "kosmos"
    spec = describe("tiny", "kosmos")
    torch.manual_seed(6)
    Kosmos2ForConditionalGeneration(Kosmos2Config.from_dict(spec.config)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(spec.tokenizer)).save_pretrained(folder)
    pictures = {"image_mean": spec.mean, "image_std": spec.std}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return str(folder)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(8)
    return [rng.integers(256, size=(SIDE, 2 * SIDE, 3), dtype=np.uint8) for _ in range(count)]


def driven(policy: Any, frames: list[np.ndarray]) -> list[Any]:
    state, steps = policy.reset(Instruction(WORDS)), []
    for number, pixels in enumerate(frames):
        frame = Frame(pixels, number * 10**8, "test", "front", number)
        step = policy.step(Observation(frame, Twist(0.3, -0.2, 0.1)), state)
        steps.append(step)
        state = step.state
    return steps


def seen(pixels: np.ndarray) -> np.ndarray:
    from mobile_vla.policy.preprocess import fit

    return fit(pixels, (SIDE, SIDE))


@pytest.mark.parametrize("layout", list(LAYOUTS))
@torch.inference_mode()
def test_an_imported_policy_gives_the_velocities_of_the_original(layout: str, tmp_path: Path, kosmos: str) -> None:
    theirs = original(layout)
    path = lightning(theirs, tmp_path / "a.ckpt")
    network, imported = import_checkpoint(path, layout, CONTRACT, AXES, kosmos, WINDOW)
    frames = pictures(5)
    steps = driven(VlaPolicy(network), frames)
    for last in range(WINDOW - 1, len(frames)):
        window = [seen(frame) for frame in frames[last - WINDOW + 1 : last + 1]]
        expected = 1.15 * theirs(window, WORDS).numpy()
        np.testing.assert_allclose(steps[last].chunk.velocities[:, :2], expected, atol=2e-5)
        np.testing.assert_array_equal(steps[last].chunk.velocities[:, 2], 0.0)
    assert np.ptp(steps[-1].chunk.velocities[:, :2]) > 1e-3
    assert {step.grounding.status for step in steps} == {Status.DRIVING}
    assert max(step.grounding.visibility for step in steps) < 0.05
    assert imported.prefix == "state_dict.model."
    assert imported.idle == ("angular_z",)


@torch.inference_mode()
def test_signs_and_order_of_the_axes_are_theirs(tmp_path: Path, kosmos: str) -> None:
    theirs = original(axes=3)
    path = lightning(theirs, tmp_path / "a.ckpt")
    axes = ("angular_z", "-linear_y", "linear_x")
    contract = contract_of(axes, (2.0, 0.5, 0.7), 5.0, 5.0, HORIZON)
    assert contract.limits == (0.7, 0.5, 2.0)
    network, imported = import_checkpoint(path, "forerunner", contract, axes, kosmos, 1)
    (frame,) = pictures(1)
    (step,) = driven(VlaPolicy(network), [frame])
    turn, right, forward = theirs([seen(frame)], WORDS).numpy().T
    expected = np.stack([0.7 * forward, -0.5 * right, 2.0 * turn], axis=1)
    np.testing.assert_allclose(step.chunk.velocities, expected, atol=2e-5)
    assert imported.idle == ()


def test_every_tensor_of_both_sides_is_in_the_report_once(tmp_path: Path, kosmos: str) -> None:
    theirs = original("robovlms")
    theirs.act_head.gripper = nn.Linear(3, 1)
    path = lightning(theirs, tmp_path / "a.ckpt")
    network, imported = import_checkpoint(path, "robovlms", CONTRACT, AXES, kosmos, WINDOW)
    names = set(theirs.state_dict())
    assert set(imported.matched) | set(imported.left) == names | {"optimizer_states.0.m"}
    assert not set(imported.matched) & set(imported.left)
    assert set(imported.left) == {
        "act_head.gripper.weight",
        "act_head.gripper.bias",
        "backbone.text_model.lm_head.weight",
        "optimizer_states.0.m",
    }
    ours = list(network.state_dict())
    assert sorted([*imported.matched.values(), *imported.fresh]) == sorted(ours)
    assert imported.pretrained == ()
    said = str(imported)
    for word in ("a gripper", "vocabulary's logits", "angular_z: always 0", "LSTM of 2 layers of 16", "16-24-20-12"):
        assert word in said
    assert json.loads(json.dumps(imported.to_dict()))["matched"]["action_token"] == "towers.kosmos.action"


def test_a_backbone_that_the_checkpoint_lacks_is_the_pretrained_one(tmp_path: Path, kosmos: str) -> None:
    theirs = original()

    def head_alone(state: dict[str, Any]) -> None:
        for name in [name for name in state if ".backbone." in name]:
            del state[name]

    path = lightning(theirs, tmp_path / "a.ckpt", head_alone)
    network, imported = import_checkpoint(path, "forerunner", CONTRACT, AXES, kosmos, WINDOW)
    pretrained = Kosmos2ForConditionalGeneration.from_pretrained(kosmos).state_dict()
    for name, value in network.towers["kosmos"].model.state_dict().items():
        assert torch.equal(value, pretrained[name]), name
        assert f"towers.kosmos.model.{name}" in imported.pretrained
    assert torch.equal(network.towers["kosmos"].action, theirs.action_token)
    assert f"from the weights of {kosmos}" in str(imported)
    with pytest.raises(CheckpointError, match="tiny has no pretrained ones"):
        import_checkpoint(path, "forerunner", CONTRACT, AXES, "tiny", WINDOW)


def test_an_imported_policy_is_saved_and_drives_again(tmp_path: Path, kosmos: str) -> None:
    path = lightning(original(), tmp_path / "a.ckpt")
    network, imported = import_checkpoint(path, "forerunner", CONTRACT, AXES, kosmos, WINDOW)
    frames = pictures(3)
    for folder, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        network.to(dtype)
        save_network(tmp_path / folder, network, {"imported": imported.to_dict()})
        steps, again = driven(VlaPolicy(network), frames), driven(load_policy(tmp_path / folder), frames)
        for step, other in zip(steps, again, strict=True):
            np.testing.assert_array_equal(step.chunk.velocities, other.chunk.velocities)


def test_what_starts_without_effect_still_learns(tmp_path: Path, kosmos: str) -> None:
    path = lightning(original(), tmp_path / "a.ckpt")
    network, _ = import_checkpoint(path, "forerunner", CONTRACT, AXES, kosmos, WINDOW)
    policy = VlaPolicy(network)
    look = network.see(torch.from_numpy(np.stack([seen(frame) for frame in pictures(1)])))
    asked = network.ask(look, network.read(network.tokenise([WORDS])))
    motion = torch.ones(1, 1, network.motion.in_features)
    decided = network.decide(asked.lead[:, None], asked.beside[:, None], motion, network.head.initial(1))
    (
        network.head.chunk(decided.context).sum() + decided.status[..., 0].sum() + asked.pointed.logits[:, 0].sum()
    ).backward()
    for part in (network.join, network.motion, network.pointer.key, network.head.status):
        assert float(part.weight.grad.abs().sum()) > 0
    assert policy.contract == CONTRACT


def renamed(start: str, other: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for name in [name for name in state if start in name]:
            state[name.replace(start, other)] = state.pop(name)

    return change


def quantised(state: dict[str, Any]) -> None:
    state["model.action_token"] = torch.zeros(32, dtype=torch.int8)


def wider(state: dict[str, Any]) -> None:
    state["model.action_token"] = torch.zeros(33)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed("velocities", "actions"), "try --layout robovlms"),
        (renamed("velocities", "other"), "holds no act_head.velocities.mlp.0.weight"),
        (renamed("act_head.rnn", "act_head.gru"), "no act_head.rnn.weight_ih_l0"),
        (lambda state: state.update({"ema.act_head.rnn.weight_ih_l0": torch.zeros(64, 32)}), "2 networks"),
        (lambda state: state.pop("model.act_head.velocities.mlp.2.bias"), r"lacks what head\.decoder\.layers\.2\.bias"),
        (lambda state: state.pop("model.action_token"), r"lacks what towers\.kosmos\.action"),
        (renamed("fc1.weight", "fc1.lora_A.weight"), "merge them"),
        (renamed("act_head.velocities.mlp.6", "act_head.logits"), "chooses among classes"),
        (quantised, "it was quantised"),
        (wider, r"of shape \[33\].*another Kosmos-2"),
    ],
)
def test_what_does_not_fit_is_a_sentence(tmp_path: Path, kosmos: str, change: Any, said: str) -> None:
    path = lightning(original(), tmp_path / "a.ckpt", change)
    with pytest.raises(CheckpointError, match=said):
        import_checkpoint(path, "forerunner", CONTRACT, AXES, kosmos, WINDOW)


def test_a_contract_that_its_last_layer_denies_is_refused(tmp_path: Path, kosmos: str) -> None:
    path = lightning(original(), tmp_path / "a.ckpt")
    for contract, axes in ((replace(CONTRACT, horizon=5), AXES), (CONTRACT, AXES[:1])):
        with pytest.raises(CheckpointError, match="gives 8 numbers, and horizon times axes is"):
            import_checkpoint(path, "forerunner", contract, axes, kosmos, WINDOW)


def test_a_contract_is_asked_for_whole() -> None:
    for axes, limits, said in (
        (("sideways",), (1.0,), "unknown axis 'sideways'"),
        (("linear_x", "linear_x"), (1.0, 1.0), "name each axis"),
        (AXES, (1.0,), "2 axes and 1 limits"),
    ):
        with pytest.raises(ConfigError, match=said):
            contract_of(axes, limits, 5.0, 5.0, 4)
    with pytest.raises(ConfigError, match="unknown layout"):
        import_checkpoint(Path("x"), "openvla", ActionContract(), AXES, "tiny")


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path, kosmos: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = lightning(original(), tmp_path / "a.ckpt", lambda state: state.update(trap=Trap()))
    with pytest.raises(UnsafeCheckpointError):
        import_checkpoint(path, "forerunner", CONTRACT, AXES, kosmos, WINDOW)
    assert not (tmp_path / "ran").exists()
