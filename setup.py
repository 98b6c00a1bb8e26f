"""Which packages earthsr brings, and where they lie: the frameworks' packages are in ``backends/``.

Metadata, extras, entry points and the settings of tools are in ``pyproject.toml``.
"""

from setuptools import find_packages, setup

BACKENDS = ["earthsr_torch", "earthsr_mindspore", "earthsr_onnx"]

setup(
    packages=[*find_packages(include=["earthsr", "earthsr.*"]), *BACKENDS],
    package_dir={name: f"backends/{name}" for name in BACKENDS},
    package_data={
        "earthsr": [
            "py.typed",
            "pretrained/*.safetensors",
            "pretrained/*.md",
            "evaluation/page/page.*",
            "emulator/native/*",
        ]
    },
)
