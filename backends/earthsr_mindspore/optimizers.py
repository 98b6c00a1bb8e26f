"""Adam and AdamW inside a compiled step, with PyTorch's placing of eps, under the names and moments of the spec."""

from __future__ import annotations

import math

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from earthsr.models import OptimizerSpec
from earthsr.models.weights import Weights
from earthsr_mindspore.networks import read, write


def _one_minus_power(log_beta: float, count: Tensor) -> Tensor:
    """``1 - beta**count`` to float32's own rounding; ``1 - exp(x)`` and ``expm1`` lose four digits near 0 on CPU."""
    x = count * log_beta
    series = -x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6)))))
    return ops.select(x > -0.25, series, 1 - ops.exp(x))


def _log(beta: float) -> float:
    """Logarithm of beta as float32 has it, which is what the kernel's ``1 - beta`` belongs to.

    For 0.999 that is 1.3e-5 off; corrected by the same beta, the update is not. A beta of 0 has no logarithm; exp(-69)
    is 0 beside 1.
    """
    return math.log(max(float(np.float32(beta)), 1e-30))


class Adam(nn.Cell):
    """Adam over named parameters; moments go in and out as NumPy.

    ``ops.Adam`` divides by ``sqrt(v) + epsilon`` before correcting the bias. With powers of beta given as 0 it corrects
    nothing, and ``rate * sqrt(c2) / c1`` and ``eps * sqrt(c2)``, where ``c = 1 - beta**step``, make its update that of
    the paper and of PyTorch. Steps are counted on the device, where it is known which of them were skipped.
    """

    def __init__(self, spec: OptimizerSpec, parameters: dict[str, Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.spec = spec
        self.names = [name for name in parameters if name not in spec.frozen]
        self.learning = ParameterTuple([parameters[name] for name in self.names])
        self.first = self._moments("first_moments")
        self.second = self._moments("second_moments")
        self.step = Parameter(Tensor(0, mstype.int32), name="adam_step", requires_grad=False)
        self.adam = ops.Adam()
        self.map = ops.HyperMap()
        self.zero = Tensor(np.float32(0))
        self.one = Tensor(np.float32(1))
        self.beta1 = Tensor(np.float32(spec.beta1))
        self.beta2 = Tensor(np.float32(spec.beta2))
        self.log1 = _log(spec.beta1)
        self.log2 = _log(spec.beta2)

    def _moments(self, prefix: str) -> ParameterTuple:
        return ParameterTuple(
            [
                Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"{prefix}.{name}", requires_grad=False)
                for name, p in zip(self.names, self.learning, strict=True)
            ]
        )

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, keep: Tensor | None = None) -> Tensor:
        """Update all parameters; the value returned only orders the graph.

        Where ``keep`` is false nothing changes: gradients count as 0, betas as 1, the rate as 0. A branch in the graph
        would cost more.
        """
        beta1, beta2 = self.beta1, self.beta2
        count = self.step + 1
        if keep is not None:
            count = self.step + keep.astype(mstype.int32)
            beta1 = ops.select(keep, beta1, self.one)
            beta2 = ops.select(keep, beta2, self.one)
            rate = ops.select(keep, rate, self.zero)
        done = ops.assign(self.step, count)
        steps = ops.maximum(count.astype(mstype.float32), self.one)
        root = ops.sqrt(_one_minus_power(self.log2, steps))
        corrected = rate * root / _one_minus_power(self.log1, steps)
        eps = self.spec.eps * root
        update = ops.partial(self._update, rate, corrected, beta1, beta2, eps, keep)
        # One graph mapped over the parameters: a loop in the graph compiles in a time that grows with their square.
        return ops.depend(done, self.map(update, self.learning, self.first, self.second, gradients))

    def _update(
        self,
        rate: Tensor,
        corrected: Tensor,
        beta1: Tensor,
        beta2: Tensor,
        eps: Tensor,
        keep: Tensor | None,
        parameter: Parameter,
        first: Parameter,
        second: Parameter,
        gradient: Tensor,
    ) -> Tensor:
        """Update one parameter."""
        decay = self.spec.weight_decay
        if decay and self.spec.name == "adam":
            gradient = gradient + decay * parameter
        elif decay:
            gradient = ops.depend(gradient, ops.assign(parameter, parameter * (1 - rate * decay)))
        if keep is not None:
            gradient = ops.masked_fill(gradient, ops.logical_not(keep), self.zero)
        return self.adam(parameter, first, second, self.zero, self.zero, corrected, beta1, beta2, eps, gradient)

    def export(self) -> tuple[Weights, Weights, int]:
        """Copy first moments, second moments and the number of steps."""
        steps = int(self.step.asnumpy())
        if not steps:
            return {}, {}, 0
        first = {name: read(moment) for name, moment in zip(self.names, self.first, strict=True)}
        second = {name: read(moment) for name, moment in zip(self.names, self.second, strict=True)}
        return first, second, steps

    def load(self, first: Weights, second: Weights, steps: int) -> None:
        """Take over moments; parameters without moments start anew."""
        write(self.step, np.int32(steps))
        for i, name in enumerate(self.names):
            zero = np.zeros(self.learning[i].shape, np.float32)
            write(self.first[i], first.get(name, zero))
            write(self.second[i], second.get(name, zero))
