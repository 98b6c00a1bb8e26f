"""What onnxruntime can do on this machine, and opening an exported model. Importing this file does not import it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, ClassVar

from earthsr.backend import BackendInfo, Device, Engine, ExportedBackend
from earthsr.backend.exported import read_exported, require_float32
from earthsr.models import NetworkSpec, Precision


class OnnxBackend(ExportedBackend):
    """Exported models on onnxruntime."""

    name: ClassVar[str] = "onnx"
    framework: ClassVar[str] = "onnxruntime"
    url: ClassVar[str] = "https://onnxruntime.ai"
    model_suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    @classmethod
    def version(cls) -> str:
        """Version of the runtime, whose build for CUDA is a distribution of another name."""
        for distribution in (cls.framework, "onnxruntime-gpu"):
            try:
                return importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
        return "unknown"

    def describe(self) -> BackendInfo:
        """Say which execution providers there are; see the base class."""
        import onnxruntime

        from earthsr_onnx.device import threads

        providers = onnxruntime.get_available_providers()
        cuda = "CUDAExecutionProvider" in providers
        return BackendInfo(
            name=self.name,
            framework=self.framework,
            version=self.version(),
            devices=(
                Device("cpu", True, f"CPUExecutionProvider, {threads()} threads"),
                Device(
                    "gpu", cuda, "CUDAExecutionProvider" if cuda else "this onnxruntime has no CUDAExecutionProvider"
                ),
                Device("ascend", False, "not supported by this backend; use mindspore"),
            ),
            precisions={"O0": "float32, that of the file"},
            unsupported={
                "training": "runs exported models (.onnx) alone",
                "O1, O2, O3": "a file computes in the precision that it was exported in",
                "layers": "a file has no outputs but its last",
            },
            unexercised={"gpu": "CUDAExecutionProvider: written from documentation, never run by this project"},
            url=self.url,
        )

    def read_model(self, path: Path) -> tuple[NetworkSpec, dict[str, Any]]:
        """Read what an ONNX file says of itself, without onnxruntime; see the base class."""
        return read_exported(path, "ONNX")

    def open_engine(
        self, path: Path, spec: NetworkSpec, *, device: str = "auto", precision: Precision | None = None
    ) -> Engine:
        """Open an ONNX file; see the base class."""
        require_float32(precision, path)
        from earthsr_onnx.engine import OnnxEngine

        return OnnxEngine(path, spec, device)
