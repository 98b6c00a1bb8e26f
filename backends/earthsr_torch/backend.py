"""What PyTorch can do on this machine, and making an engine. Importing this file does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from earthsr.backend import BackendInfo, Device, Meter, TrainingEngine, WeightsBackend
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Precision, WeightsFile
from earthsr.models.weights import Weights
from earthsr.ranks import device_of
from earthsr_torch.device import find_device


class TorchBackend(WeightsBackend):
    """PyTorch on CPU, CUDA and, through torch_npu, Ascend."""

    name: ClassVar[str] = "torch"
    framework: ClassVar[str] = "torch"
    url: ClassVar[str] = "https://pytorch.org"
    file_suffixes: ClassVar[tuple[str, ...]] = (".pt", ".pth")
    export_suffixes: ClassVar[tuple[str, ...]] = (".onnx",)

    def describe(self) -> BackendInfo:
        """Look at the devices and the processor's low-precision units."""
        import torch

        from earthsr_torch.device import npu
        from earthsr_torch.precision import cpu_has_bfloat16

        cuda = torch.cuda.is_available()
        detail = (
            f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
            if cuda
            else "this torch sees no CUDA device"
        )
        ascend = npu()
        named = f"{ascend.device_count()} x {ascend.get_device_name(0)}" if ascend else "needs CANN and torch_npu"
        fast = cuda or ascend is not None or cpu_has_bfloat16()
        low = "bfloat16 autocast" if fast else "float32: this processor has no bfloat16 units"
        return BackendInfo(
            name=self.name,
            framework=self.framework,
            version=self.version(),
            devices=(
                Device("cpu", True, f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"),
                Device("gpu", cuda, detail),
                Device("ascend", ascend is not None, named),
            ),
            precisions={
                "O0": "float32, TF32 off",
                "O1": low,
                "O2": f"{low}, channels-last, loss in float32",
                "O3": "weights in bfloat16, float32 masters" if fast else low,
            },
            unsupported={
                "compiled graphs": "steps run operator by operator (train.graph): on CPU torch.compile of 2.13 gives "
                "gradients of 0 before the last convolution of DEM-SRNet",
                "float16 on cpu": "CPU autocast in float16 has no gradient scaler; use bfloat16",
            },
            unexercised={
                "gpu": "CUDA, float16 with its gradient scaler: written from documentation, never run by this project",
                "ascend": "torch_npu, HCCL: written from its documentation (6.0 to 7.0), never run by this project",
            },
            url=self.url,
        )

    def read_file(self, path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
        """Read a state dictionary; see the base class."""
        from earthsr_torch.files import read_file

        return read_file(path)

    def write_file(self, path: Path, weights: Weights, packed: Mapping[str, str]) -> None:
        """Write a state dictionary that ``torch.load`` and ``load_state_dict`` take; see the base class."""
        from earthsr_torch.files import write_file

        write_file(path, weights, packed)

    def export(self, file: WeightsFile, path: Path, *, opset: int | None = None) -> dict[str, Any]:
        """Write ONNX; see the base class."""
        from earthsr_torch.export import export

        return export(file, path, opset)

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
        if graph:
            raise BackendError(
                "backend torch runs operator by operator: graphs of torch.compile were seen to give wrong gradients; "
                "set train.graph to null or false"
            )
        from earthsr_torch.engine import TorchEngine
        from earthsr_torch.group import join

        place = find_device(device_of(device) if distribute else device)
        return TorchEngine(spec, weights, place, precision or Precision(), join(place, distribute))

    def meter(self, engine: TrainingEngine) -> Meter:
        """Return what measures an engine; see the base class."""
        from earthsr_torch.engine import TorchEngine
        from earthsr_torch.timing import TorchMeter

        assert isinstance(engine, TorchEngine)
        return TorchMeter(engine)
