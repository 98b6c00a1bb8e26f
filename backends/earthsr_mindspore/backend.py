"""What MindSpore can do on this machine, and making an engine. Importing this file does not import mindspore."""

from __future__ import annotations

from typing import ClassVar

from earthsr.backend import Backend, BackendInfo, Device, Engine
from earthsr.errors import BackendError
from earthsr.models import NetworkSpec, Precision
from earthsr.models.initial import Weights


class MindSporeBackend(Backend):
    """MindSpore, compiled graphs, on CPU."""

    name: ClassVar[str] = "mindspore"
    framework: ClassVar[str] = "mindspore"
    url: ClassVar[str] = "https://www.mindspore.cn/en"

    def describe(self) -> BackendInfo:
        """Say what is supported, and what not and why."""
        low = "float32: low precision is slower than float32 on this backend's cpu"
        return BackendInfo(
            name=self.name,
            framework=self.framework,
            version=self.version(),
            devices=(
                Device("cpu", True, "compiled graphs"),
                Device("gpu", False, "MindSpore's GPU plug-ins are built for CUDA 11 and predate Hopper"),
                Device("ascend", False, "not written yet: this engine runs on cpu"),
            ),
            precisions={"O0": "float32", "O1": low, "O2": low, "O3": low},
            unsupported={
                "memory of accumulated batches": "optimizer.accumulate joins its batches into one: same numbers, "
                "no memory saved",
                "native losses": "a loss written in MindSpore is not accepted yet; use an objective of earthsr",
            },
            url=self.url,
        )

    def engine(
        self, spec: NetworkSpec, weights: Weights, *, device: str = "auto", precision: Precision | None = None
    ) -> Engine:
        """Build the network on a device; see the base class."""
        device = device.partition(":")[0]
        if device not in ("auto", "cpu"):
            reasons = {entry.name: entry.detail for entry in self.describe().devices}
            reason = reasons.get("gpu" if device == "cuda" else device, "it supports auto and cpu")
            raise BackendError(f"backend mindspore does not support device {device}: {reason}; use --device cpu")
        from earthsr_mindspore.engine import MindSporeEngine

        return MindSporeEngine(spec, weights, precision or Precision())
