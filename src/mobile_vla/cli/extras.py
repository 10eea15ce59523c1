"""Which optional part of the package brings which module, and the line that installs it."""

MODULES = {
    "gymnasium": "sim",
    "h5py": "imports",
    "huggingface_hub": "vla",
    "matplotlib": "sim",
    "mujoco": "sim",
    "onnx": "engines",
    "onnxruntime": "engines",
    "onnxscript": "engines",
    "openvino": "engines",
    "OpenGL": "sim",
    "peft": "vla",
    "ray": "ray",
    "scipy": "sim",
    "skfmm": "sim",
    "tensorboard": "train",
    "tokenizers": "vla",
    "torch": "policy",
    "transformers": "vla",
}
"""Top-level modules by the extra in ``pyproject.toml`` that installs them; all else comes with the robot side."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """One sentence with the line that installs what is missing; None when no extra of ours brings it."""
    module = (error.name or "").partition(".")[0]
    extra = MODULES.get(module)
    if extra is None:
        return None
    return (
        f"this command needs {module}, which is not installed here: "
        f'pip install -e ".[{extra}]" in its checkout, or ".[all]" for everything at once'
    )
