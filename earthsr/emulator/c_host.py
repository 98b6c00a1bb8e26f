"""What answers the calls of ``libearthsr_bmi`` in a host of C or Fortran, whose process this runs in.

All functions are answered by one rule: arguments become those of the method of the same name, what it returns goes to
where the host wants it, and an exception becomes a failure and a text. :class:`HostedBmi` is the Basic Model Interface
that Python has, and what C needs beside it.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.emulator.c_table import ADDED, BMI, Function
from earthsr.errors import EarthsrError, InputError
from earthsr.landuse.emulator.bmi import EarthsrBmi
from earthsr.landuse.emulator.bmi_description import BmiConfig

#: Answers that C tells apart: 0 would be that of a Python that never got so far.
DONE: Final = 1
FAILED: Final = 2

#: What C calls types.
DTYPES: Final = {
    "double": np.dtype(np.float64),
    "float": np.dtype(np.float32),
    "int": np.dtype(np.int32),
    "unsigned char": np.dtype(np.uint8),
}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
#: Letters of a text that a host makes room for: BMI_MAX_VAR_NAME and its like.
_ROOM: Final = 2048
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GDAL_NUM_THREADS")
_logger = logging.getLogger("earthsr")


class HostedBmi(EarthsrBmi):
    """The emulator behind the Basic Model Interface, as hosts of C have it."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        """One call of a model at a time; a log's function may call again."""
        self._deadline = 0.0
        self._seconds = self._longest = 0.0
        self._late = 0

    get_value_checked = EarthsrBmi.get_value
    get_value_at_indices_checked = EarthsrBmi.get_value_at_indices
    set_value_checked = EarthsrBmi.set_value
    set_value_at_indices_checked = EarthsrBmi.set_value_at_indices

    def initialize_share(self, config_file: str, rank: int, ranks: int) -> None:
        """Initialise one of several ranks that make the region together; all read the same file."""
        if self._running is not None:
            raise InputError("initialize_share: is initialised already; call finalize first")
        self._open(BmiConfig.read(config_file).model_copy(update={"share": (rank, ranks)}))

    def get_var_type(self, name: str) -> str:
        """Type of a variable's items, as C names it."""
        return _NAMES[self._variable(name).values.dtype]

    def get_value_ptr_checked(self, name: str, c_type: str) -> tuple[NDArray[Any], int]:
        """Give a reference to a variable, if it is of this type, and its number of items."""
        if self.get_var_type(name) != c_type:
            raise InputError(
                f"get_value_ptr({name}): it holds {self.get_var_type(name)}, asked for is {c_type}; "
                "get_value copies into other types"
            )
        values = self.get_value_ptr(name)
        return values, values.size

    def set_deadline(self, seconds: float) -> None:
        """Seconds that a year may take; 0 for as long as it takes."""
        self._emulator("set_deadline")
        if not 0 <= seconds < np.inf:
            raise InputError(f"set_deadline({seconds}): expected seconds, 0 for no deadline")
        self._deadline = seconds

    def get_step_seconds(self) -> tuple[float, float, int]:
        """Seconds of the last year and of the longest, and how many were late."""
        self._emulator("get_step_seconds")
        return self._seconds, self._longest, self._late

    def _advance(self, count: int) -> None:
        began = time.perf_counter()
        super()._advance(count)
        self._seconds = seconds = (time.perf_counter() - began) / count
        self._longest = max(seconds, self._longest)
        if 0 < self._deadline < seconds:
            self._late += 1
            _logger.warning("%d took %.3f s, its deadline is %g s", self._now, seconds, self._deadline)


class _PassLog(logging.Handler):
    """Hands messages to a function of C."""

    def __init__(self, ffi: Any, function: Any, context: Any) -> None:
        super().__init__(logging.INFO)
        self._ffi, self._function, self._context = ffi, function, context

    def emit(self, record: logging.LogRecord) -> None:
        self._function(record.levelno, self.format(record).encode(), self._context)


class Answers:
    """Answers the calls of a library.

    Parameters
    ----------
    ffi, lib : object
        Of the library, as cffi has them.
    """

    def __init__(self, ffi: Any, lib: Any) -> None:
        self._ffi, self._lib = ffi, lib
        self._models: dict[int, HostedBmi] = {}
        # Numbers and not addresses: what is not one of ours is told, and not followed.
        self._numbers = itertools.count(1)
        self._opened = False
        self._log: logging.Handler | None = None

    def attach(self) -> None:
        """Answer from now on."""
        for function in (*BMI, *ADDED):
            self._define(f"python_{function.name}", lambda *given, of=function: self._answer(of, *given))
        self._define("python_set_log", self._set_log)
        self._define("python_set_threads", self._set_threads)

    def _define(self, name: str, work: Callable[..., None]) -> None:
        def answer(*given: Any) -> int:
            # Whatever it is, the host goes on: SystemExit and KeyboardInterrupt too.
            try:
                work(*given)
            except BaseException as error:
                text = str(error)
                if not isinstance(error, EarthsrError):
                    text = f"{name.removeprefix('python_')}: {type(error).__name__}: {text}"
                    _logger.error("".join(traceback.format_exception(error)))
                self._lib.keep_error(" ".join(text.split()).encode("utf-8", "replace"))
                return FAILED
            return DONE

        self._ffi.def_extern(name=name, onerror=None, error=0)(answer)

    def _answer(self, function: Function, struct: Any, *given: Any) -> None:
        number = int(self._ffi.cast("uintptr_t", struct.data))
        model = self._models.get(number) or HostedBmi()
        with model.lock:
            self._call(model, function, given)
        if function.name.startswith("initialize"):
            self._opened = True
            number = next(self._numbers)
            self._models[number] = model
            struct.data = self._ffi.cast("void *", number)
        elif function.name == "finalize":
            self._models.pop(number, None)
            struct.data = self._ffi.NULL

    def _call(self, model: HostedBmi, function: Function, given: tuple[Any, ...]) -> None:
        ffi = self._ffi
        for argument, value in zip(function.arguments, given, strict=True):
            if isinstance(value, ffi.CData) and value == ffi.NULL and given[-1] != 0:
                raise InputError(f"{function.name}: {argument.name} is NULL")
        values = {a.kind: value for a, value in zip(function.arguments, given, strict=True)}
        arguments: list[Any] = []
        outputs = []
        for argument, value in zip(function.arguments, given, strict=True):
            match argument.kind:
                case "text":
                    arguments.append(_text(ffi, value, argument.name))
                case "int" | "double":
                    arguments.append(value)
                case "values_in" | "values_out":
                    arguments.append(self._items(model, values, arguments[0], value))
                case "indices":
                    arguments.append(self._array(value, DTYPES["int"], values["count"]))
                case "ints_out" | "doubles_out":
                    dtype = DTYPES["int" if argument.kind == "ints_out" else "double"]
                    arguments.append(self._array(value, dtype, _extent(model, function.name, arguments[0])))
                case "count" | "type":
                    pass
                case _:
                    outputs.append((argument, value))
        answer = getattr(model, function.name)(*arguments)
        # What fills an array of the host's returns the array, which is there already.
        results = answer if len(outputs) > 1 else (answer,) * len(outputs)
        for (argument, place), value in zip(outputs, results, strict=True):
            match argument.kind:
                case "int_out" | "double_out":
                    place[0] = value
                case "text_out":
                    _write(ffi, place, value)
                case "names_out":
                    for room, name in zip(ffi.unpack(place, len(value)), value, strict=True):
                        _write(ffi, room, name)
                case "pointer_out":
                    place[0] = ffi.cast("void *", value.ctypes.data)

    def _items(self, model: HostedBmi, values: dict[str, Any], name: str, place: Any) -> NDArray[Any]:
        """Items that a host hands over, or room for them."""
        if "type" in values:
            c_type = _text(self._ffi, values["type"], "type")
            if c_type not in DTYPES:
                raise InputError(f"{name}: no type {c_type!r}; there are {', '.join(DTYPES)}")
            dtype = DTYPES[c_type]
        else:
            dtype = DTYPES[model.get_var_type(name)]
        size = values["count"] if "count" in values else model.get_value_ptr(name).size
        return self._array(place, dtype, size)

    def _array(self, place: Any, dtype: Any, size: int) -> NDArray[Any]:
        if size < 0:
            raise InputError(f"{size} items, expected none or more")
        return np.frombuffer(self._ffi.buffer(place, size * dtype.itemsize), dtype) if size else np.empty(0, dtype)

    def _set_log(self, function: Any, context: Any) -> None:
        root = logging.getLogger()
        if self._log is not None:
            root.removeHandler(self._log)
            self._log = None
        logging.captureWarnings(function != self._ffi.NULL)
        if function != self._ffi.NULL:
            self._log = _PassLog(self._ffi, function, context)
            root.addHandler(self._log)
            _logger.setLevel(logging.INFO)

    def _set_threads(self, count: int) -> None:
        if count < 1:
            raise InputError(f"set_threads({count}): expected 1 thread or more")
        if self._opened:
            raise InputError("set_threads: libraries have started theirs; call it before the first initialize")
        os.environ.update(dict.fromkeys(_THREADS, str(count)))


def _text(ffi: Any, place: Any, what: str) -> str:
    try:
        return ffi.string(place).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{what} is no text of UTF-8") from None


def _write(ffi: Any, room: Any, text: str) -> None:
    letters = text.encode("utf-8")[: _ROOM - 1] + b"\0"
    ffi.memmove(room, letters, len(letters))


def _extent(model: HostedBmi, function: str, grid: int) -> int:
    """Items of what a function of grids fills; 0 for those that no grid here has."""
    rows, columns = model.get_grid_shape(grid, np.empty(2, int)).tolist()
    lengths = {"shape": 2, "spacing": 2, "origin": 2, "x": columns, "y": rows}
    return lengths.get(function.removeprefix("get_grid_"), 0)


def answer_calls(ffi: Any, lib: Any) -> None:
    """Answer the calls of a library; its own start calls it."""
    if lib.owns_python():
        # Standard output is the host's.
        sys.stdout = sys.stderr
    Answers(ffi, lib).attach()
