"""``libearthsr_bmi``: the emulator's Basic Model Interface as a library for hosts of C and Fortran.

``python -m earthsr.emulator.c_library DIR`` builds it with the C compiler that is there. In DIR are then ``include``
(``bmi.h``, ``earthsr_bmi.h`` and the Fortran module, which the host's compiler compiles), ``lib`` (the library) and
``lib/pkgconfig``. It starts the Python that built it, inside the host's process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Final

import earthsr
from earthsr.emulator import c_table
from earthsr.errors import EarthsrError, InputError, WorkError, install_hint
from earthsr.store import atomic_file, write_text

NAME: Final = "earthsr_bmi"
_MODULE: Final = "_earthsr_bmi"
_NATIVE: Final = Path(__file__).parent / "native"

#: What C and Python call of each other, beside the table.
_BETWEEN: Final = """
int python_set_log(void (*log)(int, const char *, void *), void *context);
int python_set_threads(int count);
"""

#: Runs in the host before the first call is answered.
_START: Final = f"""
from {_MODULE} import ffi, lib
try:
    from earthsr.emulator.c_host import answer_calls
    answer_calls(ffi, lib)
except BaseException as error:
    lib.keep_start_error(f"earthsr cannot be started in this process: {{type(error).__name__}}: {{error}}".encode())
"""

_BMI_H: Final = f"""/* The Basic Model Interface for C, as CSDMS's bmi-c 2.0 has it. */
#ifndef BMI_H
#define BMI_H

#if defined(__cplusplus)
extern "C" {{
#endif

#define BMI_SUCCESS (0)
#define BMI_FAILURE (1)

#define BMI_MAX_UNITS_NAME (2048)
#define BMI_MAX_TYPE_NAME (2048)
#define BMI_MAX_COMPONENT_NAME (2048)
#define BMI_MAX_VAR_NAME (2048)

{c_table.struct()}
#if defined(__cplusplus)
}}
#endif

#endif
"""

_PKG_CONFIG: Final = """prefix=${{pcfiledir}}/../..
includedir=${{prefix}}/include
libdir=${{prefix}}/lib
fortran_module=${{includedir}}/earthsr_bmi.f90

Name: {name}
Description: Emulator of land use behind the Basic Model Interface
Version: {version}
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -Wl,-rpath,${{libdir}} -l{name}
"""


def build_c_library(folder: str | Path) -> Path:
    """Build the library, its headers, its Fortran module and its ``pkg-config`` file.

    Parameters
    ----------
    folder : str or Path
        Gets ``include`` and ``lib``; files of an earlier build are replaced.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    InputError
        If the package cffi, a shared libpython or the package bmipy is not there.
    WorkError
        If the compiler is not there, or fails.

    Examples
    --------
    >>> from earthsr.emulator.c_library import build_c_library
    >>> library = build_c_library("runs/libearthsr_bmi")  # doctest: +SKIP
    """
    folder = Path(folder)
    importlib.import_module("earthsr.landuse.emulator.bmi")
    includes, libraries = folder / "include", folder / "lib"
    header = (_NATIVE / f"{NAME}.h").read_text(encoding="utf-8")
    ending = "\n#if defined(__cplusplus)\n}\n#endif\n\n#endif\n"
    # Compiled elsewhere: where the compiler fails nothing is left in the folder.
    with tempfile.TemporaryDirectory() as scratch:
        built = _compiled(Path(scratch))
        library = libraries / built.name
        with atomic_file(library) as temporary:
            shutil.copyfile(built, temporary)
    write_text(includes / "bmi.h", _BMI_H)
    write_text(includes / f"{NAME}.h", header + c_table.declarations() + ending)
    write_text(includes / f"{NAME}.f90", _fortran_module())
    write_text(libraries / "pkgconfig" / f"{NAME}.pc", _PKG_CONFIG.format(name=NAME, version=earthsr.__version__))
    return library


def _fortran_module() -> str:
    text = (_NATIVE / "module.f90").read_text(encoding="utf-8")
    parts = {
        "bindings": c_table.fortran_bindings(),
        "interfaces": c_table.fortran_interfaces(),
        "procedures": c_table.fortran_procedures(),
    }
    for name, part in parts.items():
        text = text.replace(f"!@{name}\n", part)
    return text


def _compiled(scratch: Path) -> Path:
    """Compile in a folder."""
    try:
        cffi: Any = importlib.import_module("cffi")
    except ImportError:
        raise InputError(f"a library for C needs the package cffi: {install_hint('bmi')}") from None
    python = _python_library()
    builder = cffi.FFI()
    builder.embedding_api("")
    builder.cdef(
        f"{c_table.struct()}\nint owns_python(void);\nvoid keep_error(const char *text);\n"
        "void keep_start_error(const char *text);\n"
        f'extern "Python" {{\n{c_table.python_declarations()}{_BETWEEN}}}'
    )
    builder.embedding_init_code(_START)
    native = (_NATIVE / "library.c").read_text(encoding="utf-8")
    forward = "".join(f"static {line}\n" for line in _BETWEEN.strip().splitlines())
    source = [
        f"#define EARTHSR_INTERPRETER {json.dumps(sys.executable)}",
        c_table.struct(),
        c_table.python_declarations("static "),
        forward,
        native,
        c_table.definitions(),
    ]
    builder.set_source(
        _MODULE,
        "\n".join(source),
        library_dirs=[str(python.parent)],
        extra_compile_args=["-fvisibility=hidden", "-O2"],
        # A host that closes the library goes on without it, but Python, which knows its objects, does not.
        extra_link_args=[f"-Wl,-rpath,{python.parent}", *(["-Wl,-z,nodelete"] if sys.platform == "linux" else [])],
    )
    # Compilers and setuptools speak on standard output; what they say is wanted where they fail.
    log = scratch / "compiler.log"
    try:
        with _standard_streams_in(log):
            built = builder.compile(str(scratch), target=f"lib{NAME}.*")
    except Exception as error:
        said = [line for line in log.read_text(errors="replace").splitlines() if "error" in line.lower()]
        raise WorkError(
            f"the C compiler failed ({(said or [str(error)])[0].strip()}); a library for C needs gcc or clang, and the "
            f"headers of Python {sysconfig.get_python_version()}"
        ) from None
    return Path(built)


def _python_library() -> Path:
    """Shared library of this Python."""
    folder, names = sysconfig.get_config_var("LIBDIR"), ("INSTSONAME", "LDLIBRARY")
    for name in names:
        path = Path(str(folder)) / str(sysconfig.get_config_var(name))
        if path.suffix != ".a" and path.is_file():
            return path
    raise InputError(
        f"{sys.executable} has no shared library of Python in {folder}; take a Python that was built with "
        "--enable-shared, such as that of a distribution or of conda"
    )


@contextlib.contextmanager
def _standard_streams_in(path: Path) -> Any:
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def main() -> int:
    """Build the library in the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m earthsr.emulator.c_library", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", metavar="DIR", type=Path, help="gets include, lib and lib/pkgconfig")
    folder = parser.parse_args().folder
    try:
        library = build_c_library(folder)
    except EarthsrError as error:
        print(error, file=sys.stderr)
        return error.exit_code if hasattr(error, "exit_code") else 1
    print(library)
    return 0


if __name__ == "__main__":
    sys.exit(main())
