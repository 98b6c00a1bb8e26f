"""PyTorch's Adam and AdamW under the names and moments of the spec."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earthsr.models import OptimizerSpec
from earthsr.models.weights import Weights
from earthsr_torch.networks import read, write


class Adam:
    """Adam over named float32 masters; moments go in and out as NumPy."""

    def __init__(self, spec: OptimizerSpec, masters: dict[str, Tensor], fused: bool = True) -> None:
        self.spec = spec
        self.names = [name for name in masters if name not in spec.frozen]
        self.parameters = [masters[name] for name in self.names]
        kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
        # fused: one kernel for all parameters; agrees with PyTorch's plain loop to rounding.
        self.fused = fused
        self.inner = kind(
            self.parameters,
            lr=0.0,
            betas=(spec.beta1, spec.beta2),
            eps=spec.eps,
            weight_decay=spec.weight_decay,
            fused=fused,
            foreach=False,
        )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.inner.param_groups:
            group["lr"] = rate

    def divide_by(self, divisor: Tensor) -> None:
        """Let the next step divide the gradient, where it is fused: its kernel does so on the way."""
        self.inner.grad_scale = divisor  # type: ignore[attr-defined]

    def step(self) -> None:
        """Update all parameters."""
        self.inner.step()
        if hasattr(self.inner, "grad_scale"):
            del self.inner.grad_scale

    def updates(self) -> int:
        """Updates of the last parameter, of which skipped ones are none; the device is waited for."""
        state = self.inner.state.get(self.parameters[-1]) if self.parameters else None
        return int(state["step"].item()) if state else 0

    def export(self) -> tuple[Weights, Weights, int]:
        """Copy first moments, second moments and the number of steps."""
        first: Weights = {}
        second: Weights = {}
        steps = 0
        for name, parameter in zip(self.names, self.parameters, strict=True):
            state = self.inner.state.get(parameter)
            if state:
                first[name] = read(state["exp_avg"])
                second[name] = read(state["exp_avg_sq"])
                steps = int(state["step"].item())
        return first, second, steps

    def load(self, first: Weights, second: Weights, steps: int) -> None:
        """Take over moments; parameters without moments start anew."""
        self.inner.state.clear()
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if name in first:
                self.inner.state[parameter] = {
                    "step": torch.tensor(float(steps), device=parameter.device),
                    "exp_avg": _like(first[name], parameter),
                    "exp_avg_sq": _like(second[name], parameter),
                }


def _like(array: NDArray[np.float32], parameter: Tensor) -> Tensor:
    """Return a float32 tensor of ``array`` in the memory layout of ``parameter``."""
    tensor = torch.empty_like(parameter, dtype=torch.float32)
    write(tensor, array)
    return tensor
