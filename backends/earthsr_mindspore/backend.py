"""What MindSpore can do on this machine, and making an engine. Importing this file does not import mindspore."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from earthsr.backend import BackendInfo, Device, Engine, ExportedBackend, Meter, TrainingEngine, WeightsBackend
from earthsr.backend.exported import read_exported, require_float32
from earthsr.models import NetworkSpec, Precision, WeightsFile
from earthsr.models.weights import Weights
from earthsr_mindspore import device
from earthsr_mindspore.device import set_device


class MindSporeBackend(WeightsBackend, ExportedBackend):
    """MindSpore, compiled graphs, on CPU and Ascend."""

    name: ClassVar[str] = "mindspore"
    framework: ClassVar[str] = "mindspore"
    url: ClassVar[str] = "https://www.mindspore.cn/en"
    file_suffixes: ClassVar[tuple[str, ...]] = (".ckpt",)
    export_suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".mindir")
    model_suffixes: ClassVar[tuple[str, ...]] = (".mindir",)

    def describe(self) -> BackendInfo:
        """Say what is supported, and what not and why, without importing mindspore."""
        missing = device.ascend_reason()
        isa = device.isa_reason(self.version()) or f"oneDNN capped at AVX2, unless {device.ISA_SWITCH} is native"
        low = "float16 convolutions, norms and loss in float32, "
        kind = "fixed loss scale; slower than O0 on cpu" if missing else "dynamic loss scale, overflowing steps skipped"
        return BackendInfo(
            name=self.name,
            framework=self.framework,
            version=self.version(),
            devices=(
                Device("cpu", True, f"compiled graphs; {isa}"),
                Device("gpu", False, device.GPU_REASON),
                Device("ascend", missing is None, missing or "CANN and an NPU are there"),
            ),
            precisions={"O0": "float32", "O1": low + kind, "O2": low + kind, "O3": low + kind},
            unsupported={
                "memory of accumulated batches": "optimizer.accumulate joins its batches into one: same numbers, "
                "no memory saved",
                "batch norm over all ranks": "train.sync_batch_norm is refused; group norm does not depend on ranks",
                "native losses": "a loss written in MindSpore is not accepted yet; use an objective of earthsr",
                "bfloat16 on cpu": "MindSpore has no bfloat16 convolution there",
            },
            unexercised={
                "ascend": "written from MindSpore's documentation, never run by this project; it asks for CANN "
                + device.CANN_VERSIONS
            },
            url=self.url,
        )

    def read_file(self, path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
        """Read a MindSpore checkpoint; see the base class."""
        device.load()
        from earthsr_mindspore.files import read_file

        return read_file(path)

    def write_file(self, path: Path, weights: Weights, packed: Mapping[str, str]) -> None:
        """Write a checkpoint that ``mindspore.load_checkpoint`` takes; see the base class."""
        device.load()
        from earthsr_mindspore.files import write_file

        write_file(path, weights, packed)

    def export(self, file: WeightsFile, path: Path, *, opset: int | None = None) -> dict[str, Any]:
        """Write MindIR, or ONNX where MindSpore can; see the base class."""
        set_device("cpu", self.version())
        from earthsr_mindspore.export import export

        return export(file, path, opset)

    def read_model(self, path: Path) -> tuple[NetworkSpec, dict[str, Any]]:
        """Read what a MindIR file says of itself, without mindspore; see the base class."""
        return read_exported(path, "MindIR")

    def open_engine(
        self, path: Path, spec: NetworkSpec, *, device: str = "auto", precision: Precision | None = None
    ) -> Engine:
        """Open a MindIR file; see the base class."""
        require_float32(precision, path)
        chosen = set_device(device, self.version())
        from earthsr_mindspore.export import MindIREngine

        return MindIREngine(path, spec, chosen)

    def engine(
        self,
        spec: NetworkSpec,
        weights: Weights,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        graph: bool | None = None,
        distribute: bool = False,
    ) -> TrainingEngine:
        """Build the network on a device; see the base class."""
        chosen = set_device(device, self.version())
        from earthsr_mindspore.engine import MindSporeEngine
        from earthsr_mindspore.group import join

        return MindSporeEngine(spec, weights, chosen, precision or Precision(), graph is not False, join(distribute))

    def meter(self, engine: TrainingEngine) -> Meter:
        """Return what measures an engine; see the base class."""
        from earthsr_mindspore.engine import MindSporeEngine
        from earthsr_mindspore.timing import MindSporeMeter

        assert isinstance(engine, MindSporeEngine)
        return MindSporeMeter(engine)
