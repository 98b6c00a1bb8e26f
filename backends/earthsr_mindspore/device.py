"""The process as MindSpore finds it: its environment, its device, its instruction set, its mode.

MindSpore keeps all of these per process. Importing this file imports nothing of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import platform
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from earthsr.errors import BackendError

_logger = logging.getLogger("earthsr")

#: ``native`` leaves MindSpore's convolutions as they are.
ISA_SWITCH = "EARTHSR_MINDSPORE_ISA"
_AVX2 = 0x7  # dnnl_cpu_isa_avx2
#: Versions whose oneDNN takes a reference convolution on AVX-512; on others nothing is touched.
_SLOW_VERSIONS = ("2.10.",)

GPU_REASON = "MindSpore's GPU plug-ins are built for CUDA 11 and predate Hopper; use --backend torch"
#: From the version check that MindSpore 2.10 itself makes (mindspore/run_check); its own operators are built with 9.1.
CANN_VERSIONS = "8.2, 8.3, 8.5, 9.0, 9.1"


def ascend_reason() -> str | None:
    """Why there is no Ascend device here, or None where there seems to be one. MindSpore is not asked: it warns."""
    if not os.environ.get("ASCEND_HOME_PATH"):
        return f"CANN is not set up: ASCEND_HOME_PATH is empty (CANN {CANN_VERSIONS} is asked for)"
    if not list(Path("/dev").glob("davinci[0-9]*")):
        return "there is no NPU: /dev/davinci0 is missing (the driver makes it)"
    return None


def isa_reason(version: str) -> str | None:
    """Why MindSpore's instruction set is left alone, or None where capping it makes convolutions faster."""
    if os.environ.get(ISA_SWITCH) == "native":
        return f"{ISA_SWITCH} is native"
    for variable in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if os.environ.get(variable):
            return f"{variable} is set"
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return f"not an x86 Linux: {platform.system()} {platform.machine()}"
    if not version.startswith(_SLOW_VERSIONS):
        return f"only MindSpore {', '.join(v + 'x' for v in _SLOW_VERSIONS)} is known to need it"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "/proc/cpuinfo cannot be read"
    if "avx512f" not in flags:
        return "the processor has no AVX-512"
    return None if _library().is_file() else f"{_library()} is missing"


def _library() -> Path:
    spec = importlib.util.find_spec("mindspore")
    origin = "" if spec is None or spec.origin is None else spec.origin
    return Path(origin).parent / "lib" / "libdnnl.so.3"


@cache
def cap_instruction_set(version: str) -> str:
    """Cap MindSpore's own copy of oneDNN at AVX2 where that is faster, once per process; say what was done.

    On AVX-512 machines the oneDNN in MindSpore 2.10 finds no fast convolution for plain layouts and falls back to its
    reference code (about 1 GFLOP/s); capped at AVX2 it multiplies matrices (over 100). The environment variable
    ``ONEDNN_MAX_CPU_ISA`` would do it too, but PyTorch in the same process reads it. The cap works only before the
    first operator.
    """
    reason = isa_reason(version)
    if reason is not None:
        return f"instruction set as it is: {reason}"
    library = ctypes.CDLL(str(_library()))
    status = library.dnnl_set_max_cpu_isa(_AVX2)
    if status != 0 and library.dnnl_get_effective_cpu_isa() != _AVX2:
        _logger.warning(
            "MindSpore ran operators before earthsr could cap its oneDNN at AVX2: its convolutions are slow in this "
            "process; make the model before other MindSpore code runs"
        )
        return "instruction set as it is: MindSpore ran operators before"
    return "oneDNN capped at AVX2"


def _scratch() -> str:
    path = Path(tempfile.gettempdir()) / f"earthsr-mindspore-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    path.mkdir(mode=0o700, exist_ok=True)
    return str(path)


def require_no_compile_cache() -> None:
    """Refuse MindSpore's cache of compiled graphs, which trains nothing.

    A step that 2.10 takes from the cache updates parameters of its own: the losses fall, and the weights that are saved
    are the first ones (seen on CPU).

    Raises
    ------
    BackendError
        If the cache is on.
    """
    import mindspore as ms

    if os.environ.get("MS_COMPILER_CACHE_ENABLE") == "1" or ms.get_context("enable_compile_cache"):
        raise BackendError(
            "MindSpore's compile cache is on (MS_COMPILER_CACHE_ENABLE or enable_compile_cache): a training step taken "
            "from it leaves the weights as they were; switch it off"
        )


@cache
def load() -> None:
    """Import MindSpore with its diagnostics, caches and rank folders kept out of the working directory."""
    scratch = _scratch()
    for variable in ("MS_OM_PATH", "MS_COMPILER_CACHE_PATH", "ASCEND_WORK_PATH", "ASCEND_CACHE_PATH"):
        os.environ.setdefault(variable, scratch)
    if "GLOG_v" not in os.environ:
        # The module COMMON warns that there is no communication manager for CPU, which nothing here asks for.
        os.environ.setdefault("MS_SUBMODULE_LOG_v", "{COMMON:3}")
    import mindspore  # noqa: F401


def set_device(device: str, version: str) -> str:
    """Choose the process's device and return its name, ``cpu`` or ``ascend``.

    Parameters
    ----------
    device : str
        As the command line takes it, a number behind a colon included. Without one MindSpore chooses: the first NPU,
        or one for each of the processes that ``msrun`` has started, which an explicit number would overrule.
    version : str
        MindSpore's.

    Raises
    ------
    BackendError
        If it is not supported or not there, or the process has settled on another one.
    """
    device, _, digits = device.partition(":")
    number = int(digits) if digits else None
    if device in ("gpu", "cuda"):
        raise BackendError(f"backend mindspore does not support device {device}: {GPU_REASON}, or --device cpu")
    if device not in ("auto", "cpu", "ascend"):
        raise BackendError(f"unknown device {device!r}; backend mindspore supports auto, cpu and ascend")
    missing = ascend_reason()
    if device == "ascend" and missing is not None:
        raise BackendError(f"backend mindspore cannot use device ascend: {missing}; use --device cpu")
    name = "cpu" if device == "cpu" or missing is not None else "ascend"
    load()
    require_no_compile_cache()
    try:
        _settle(name, number, version)
    except (RuntimeError, ValueError) as error:
        chosen = name if number is None else f"{name} {number}"
        raise BackendError(
            f"MindSpore cannot use device {chosen} in this process ({error}); it settles on the first one that it is "
            "given: start a new process"
        ) from None
    return name


@cache
def _settle(name: str, number: int | None, version: str) -> None:
    """Give the process its device: once, for processes that have met take no second call, even of the same."""
    import mindspore as ms

    if name == "ascend" and number is None:
        ms.set_device("Ascend")
    elif name == "ascend":
        ms.set_device("Ascend", number)
    else:
        ms.set_device("CPU")
        cap_instruction_set(version)


# MindSpore takes each of the next two once per process, and raises an error when asked again.
@cache
def forbid_hf32() -> None:
    """Let float32 be float32: an Ascend's default for convolutions is HF32, which keeps 11 bits of the mantissa.

    At every level: from O1 on the only convolution in float32 is that of the interpolated surface, whose heights it is.
    """
    import mindspore as ms

    ms.device_context.ascend.op_precision.conv_allow_hf32(False)
    ms.device_context.ascend.op_precision.matmul_allow_hf32(False)


@cache
def set_deterministic() -> None:
    """Ask for deterministic kernels, which are slower."""
    import mindspore as ms

    ms.set_deterministic(True)


@contextlib.contextmanager
def mode(graph: bool) -> Iterator[None]:
    """Run in graph mode or in PyNative mode, and leave the process's own mode as it was.

    In graph mode a cell is compiled when it is first called. The same step under ``ms.jit``, called from PyNative
    mode, takes 1.6 times as long on CPU (tools/benchmark_mindspore.py).
    """
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE if graph else ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)
