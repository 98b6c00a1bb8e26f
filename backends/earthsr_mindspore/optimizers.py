"""Adam and AdamW inside a compiled step, with PyTorch's placing of eps, under the names and moments of the spec."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from earthsr.models import OptimizerSpec
from earthsr.models.initial import Weights
from earthsr_mindspore.tensors import read, write


class Adam(nn.Cell):
    """Adam over named parameters; moments go in and out as NumPy.

    ``ops.Adam`` divides by ``sqrt(v) + epsilon`` before correcting the bias. Given
    ``epsilon = eps * sqrt(1 - beta2**t)`` as data, its update is that of the paper and of PyTorch.
    """

    def __init__(self, spec: OptimizerSpec, parameters: dict[str, Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.spec = spec
        self.names = [name for name in parameters if name not in spec.frozen]
        self.learning = ParameterTuple([parameters[name] for name in self.names])
        self.first = self._moments("first_moments")
        self.second = self._moments("second_moments")
        self.steps = 0
        self.adam = ops.Adam()
        self.beta1 = Tensor(np.float32(spec.beta1))
        self.beta2 = Tensor(np.float32(spec.beta2))

    def _moments(self, prefix: str) -> ParameterTuple:
        return ParameterTuple(
            [
                Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"{prefix}.{name}", requires_grad=False)
                for name, p in zip(self.names, self.learning, strict=True)
            ]
        )

    def numbers(self, rate: float) -> tuple[Tensor, ...]:
        """Count a step, and give its rate, powers of beta and eps as tensors: data, never constants of a graph."""
        self.steps += 1
        power1, power2 = self.spec.beta1**self.steps, self.spec.beta2**self.steps
        eps = self.spec.eps * (1 - power2) ** 0.5
        return tuple(Tensor(np.float32(value)) for value in (rate, power1, power2, eps))

    def construct(
        self, gradients: tuple[Tensor, ...], rate: Tensor, power1: Tensor, power2: Tensor, eps: Tensor
    ) -> Tensor:
        """Update all parameters; the value returned only orders the graph."""
        done = rate
        decay = self.spec.weight_decay
        for i in range(len(self.names)):
            parameter, gradient = self.learning[i], gradients[i]
            if decay and self.spec.name == "adam":
                gradient = gradient + decay * parameter
            elif decay:
                done = ops.depend(done, ops.assign(parameter, parameter * (1 - rate * decay)))
                gradient = ops.depend(gradient, done)
            update = self.adam(
                parameter, self.first[i], self.second[i], power1, power2, rate, self.beta1, self.beta2, eps, gradient
            )
            done = ops.depend(done, update)
        return done

    def export(self) -> tuple[Weights, Weights, int]:
        """Copy first moments, second moments and the number of steps."""
        if not self.steps:
            return {}, {}, 0
        first = {name: read(moment) for name, moment in zip(self.names, self.first, strict=True)}
        second = {name: read(moment) for name, moment in zip(self.names, self.second, strict=True)}
        return first, second, self.steps

    def load(self, first: Weights, second: Weights, steps: int) -> None:
        """Take over moments; parameters without moments start anew."""
        self.steps = steps
        for i, name in enumerate(self.names):
            zero = np.zeros(self.learning[i].shape, np.float32)
            write(self.first[i], first.get(name, zero))
            write(self.second[i], second.get(name, zero))
