"""What PyTorch can do on this machine, and making an engine. Importing this file does not import torch."""

from __future__ import annotations

from typing import ClassVar

from earthsr.backend import Backend, BackendInfo, Device, Engine
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Precision
from earthsr.models.initial import Weights


class TorchBackend(Backend):
    """PyTorch on CPU and CUDA."""

    name: ClassVar[str] = "torch"
    framework: ClassVar[str] = "torch"
    url: ClassVar[str] = "https://pytorch.org"

    def describe(self) -> BackendInfo:
        """Look at the devices and the processor's low-precision units."""
        import torch

        from earthsr_torch.precision import cpu_has_bfloat16

        cuda = torch.cuda.is_available()
        detail = (
            f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
            if cuda
            else "this torch sees no CUDA device"
        )
        fast = cuda or cpu_has_bfloat16()
        low = "bfloat16 autocast" if fast else "float32: this processor has no bfloat16 units"
        return BackendInfo(
            name=self.name,
            framework=self.framework,
            version=self.version(),
            devices=(
                Device("cpu", True, f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"),
                Device("gpu", cuda, detail),
                Device("ascend", False, "not supported by this backend; use mindspore"),
            ),
            precisions={
                "O0": "float32, TF32 off",
                "O1": low,
                "O2": f"{low}, channels-last, loss in float32",
                "O3": "weights in bfloat16, float32 masters" if fast else low,
            },
            unsupported={"float16 on cpu": "CPU autocast in float16 has no gradient scaler; use bfloat16"},
            url=self.url,
        )

    def engine(
        self, spec: NetworkSpec, weights: Weights, *, device: str = "auto", precision: Precision | None = None
    ) -> Engine:
        """Build the network on a device; see the base class."""
        import torch

        from earthsr_torch.engine import TorchEngine

        cuda = torch.cuda.is_available()
        device, _, number = device.partition(":")
        if device == "ascend":
            raise BackendError("backend torch does not support device ascend; use --backend mindspore")
        if device in ("gpu", "cuda") and not cuda:
            raise BackendError(
                "backend torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch"
            )
        if device not in ("auto", "cpu", "gpu", "cuda"):
            raise BackendError(f"unknown device {device!r}; backend torch supports auto, cpu and gpu")
        kind = "cuda" if device in ("gpu", "cuda") or (device == "auto" and cuda) else "cpu"
        place = torch.device(kind)
        if kind == "cuda":
            index = int(number or 0)
            if index >= torch.cuda.device_count():
                raise BackendError(
                    f"there is no CUDA device {index}: {torch.cuda.device_count()} found; set train.device_id lower"
                )
            place = torch.device(kind, index)
        return TorchEngine(spec, weights, place, precision or Precision())
