"""Files that ask for what no file may ask for: other files, all memory, no end, the terminal, a reader's browser."""

from __future__ import annotations

import json
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.hardening_parts.forked import earthsr, in_child, warm
from tools.hardening_parts.outcomes import Tally

ROWS, COLUMNS = 8, 10
PLACE = "<SRS>EPSG:4326</SRS><GeoTransform>10, 0.004, 0, 47, 0, -0.004</GeoTransform>"


@dataclass(frozen=True)
class Hostile:
    """A file, what reads it, and what has to be said."""

    name: str
    make: Callable[[Path], None]
    """Writes the file, and what it refers to, into a folder ``own`` of the folder that it gets, and beside it."""
    words: tuple[str, ...]
    """Command line, run in the folder."""
    code: int = 2
    says: tuple[str, ...] = ()
    """Parts of standard error or output."""
    never: tuple[str, ...] = ()
    """What nothing that is printed or written may hold."""


def _own(folder: Path, name: str) -> Path:
    (folder / "own").mkdir(exist_ok=True)
    return folder / "own" / name


def _raw_vrt(target: str, relative: int = 0) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "secret.bin").write_bytes(b"secret" * 400)
        band = (
            f'<VRTRasterBand dataType="Float32" band="1" subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="'
            f'{relative}">{target.format(folder=folder)}</SourceFilename><ImageOffset>0</ImageOffset></VRTRasterBand>'
        )
        text = f'<VRTDataset rasterXSize="{COLUMNS}" rasterYSize="{ROWS}">{PLACE}{band}</VRTDataset>'
        _own(folder, "a.vrt").write_text(text)

    return make


def _wms(folder: Path) -> None:
    _own(folder, "a.xml").write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://localhost/</ServerUrl></Service></GDAL_WMS>'
    )


def _hdf5(folder: Path, name: str, external: bool) -> None:
    import h5py
    import numpy as np

    (folder / "secret.bin").write_bytes(np.arange(ROWS * COLUMNS, dtype="<f4").tobytes())
    with h5py.File(folder / "secret.h5", "w") as handle:
        handle["elevation"] = np.ones((ROWS, COLUMNS), np.float32)
    with h5py.File(_own(folder, name), "w") as handle:
        if external:
            stored = [(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
            handle.create_dataset("elevation", (ROWS, COLUMNS), "f4", external=stored)
        else:
            handle["elevation"] = h5py.ExternalLink("../secret.h5", "elevation")


def _attribute_loop(folder: Path) -> None:
    """A file in whose heap of texts an object has no size: HDF5 looks for the next one without end."""
    import h5py
    import numpy as np

    path = _own(folder, "a.h5")
    with h5py.File(path, "w") as handle:
        handle["elevation"] = np.ones((ROWS, COLUMNS), np.float32)
        for number in range(4):
            handle.attrs[f"note{number}"] = "x" * 40
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    first = struct.unpack_from("<Q", content, heap + 24)[0]
    second = heap + 16 + 16 + (first + 7) // 8 * 8
    content[second : second + 16] = bytes(16)
    path.write_bytes(content)


def _weights(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from earthsr.models import DemSRNetSpec, initial_weights
        from earthsr.models.weights import KEY, pack_metadata, write_tensors

        spec = DemSRNetSpec(features=2, num_blocks=1)
        notes = {"task": "dem_sr", "units": "m", "normalisation": {"kind": "none"}}
        values = json.loads(pack_metadata(spec, notes)[KEY])
        change(values)
        write_tensors(_own(folder, "w.safetensors"), initial_weights(spec, 0), {KEY: json.dumps(values)})

    return make


def _nested(folder: Path) -> None:
    from earthsr.models import DemSRNetSpec, initial_weights
    from earthsr.models.weights import KEY, write_tensors

    text = '{"schema_version": 1, "spec": {}, "metadata": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}"
    write_tensors(
        _own(folder, "w.safetensors"), initial_weights(DemSRNetSpec(features=2, num_blocks=1), 0), {KEY: text}
    )


def _zeros(path: Path, name: str, count: int, head: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as out:
        out.write(head)
        for _ in range(count):
            out.write(bytes(1 << 20))


def _bomb_pt(folder: Path) -> None:
    _zeros(_own(folder, "p.pt"), "archive/data/0", 64)


def _npy_head(rows: int) -> bytes:
    import io

    import numpy as np

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (rows, 1 << 10)})
    return head.getvalue()


def _bomb_npz(folder: Path) -> None:
    _zeros(_own(folder, "a.npz"), "elevation.npy", 1100, _npy_head(1100 * 256))


def _lying_npz(folder: Path) -> None:
    _zeros(_own(folder, "a.npz"), "elevation.npy", 1, _npy_head(1 << 40))


def _classic(folder: Path) -> None:
    # One dimension, and a number of variables that is followed by nothing.
    content = b"CDF\x01" + struct.pack(">iiii", 0, 10, 1, 3) + b"lat\0" + struct.pack(">i", 8)
    _own(folder, "a.nc").write_bytes(content + struct.pack(">iiii", 0, 0, 11, 0x7FFFFFFF))


def _texts(values: dict) -> None:
    values["metadata"]["source"] = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script> [a](javascript:alert(1))"
    values["metadata"]["summary"] = "<script>alert(2)</script> [b](javascript:alert(2))"


def _spec(**fields: object) -> Callable[[dict], None]:
    return lambda values: values["spec"].update(fields)


PREDICT = ("--backend", "torch", "--dry-run")
OUTSIDE = ("outside of the file's own folder", "--allow-external")
PREDICT_VRT = ("predict", "demo-dem", "own/a.vrt", "o.tif", *PREDICT)
SHOW = ("info", "own/w.safetensors")
CASES: tuple[Hostile, ...] = (
    Hostile("vrt of another folder", _raw_vrt("{folder}/secret.bin"), PREDICT_VRT, says=("a.vrt", *OUTSIDE)),
    Hostile("vrt of the folder above", _raw_vrt("../secret.bin", 1), PREDICT_VRT, says=("secret.bin", *OUTSIDE)),
    Hostile("vrt of an address", _raw_vrt("/vsicurl/http://localhost/x"), PREDICT_VRT, says=("vsicurl", *OUTSIDE)),
    Hostile("vrt prepared", _raw_vrt("{folder}/secret.bin"), ("prepare", "dem", "out", "own/a.vrt"), says=OUTSIDE),
    Hostile(
        "description of a server",
        _wms,
        ("predict", "demo-dem", "own/a.xml", "o.tif", *PREDICT),
        says=("a.xml", "--allow-external"),
    ),
    Hostile(
        "hdf5 stored elsewhere",
        lambda folder: _hdf5(folder, "a.h5", True),
        ("info", "own/a.h5"),
        says=("a.h5", "elevation", *OUTSIDE),
    ),
    Hostile(
        "hdf5 linked elsewhere",
        lambda folder: _hdf5(folder, "a.h5", False),
        ("info", "own/a.h5"),
        says=("secret.h5", *OUTSIDE),
    ),
    Hostile(
        "netcdf stored elsewhere",
        lambda folder: _hdf5(folder, "a.nc", True),
        ("predict", "demo-dem", "own/a.nc", "o.tif", *PREDICT),
        says=OUTSIDE,
    ),
    Hostile(
        "hdf5 allowed elsewhere",
        lambda folder: _hdf5(folder, "a.h5", False),
        ("info", "own/a.h5", "--allow-external"),
        code=0,
    ),
    Hostile("hdf5 attributes without end", _attribute_loop, ("info", "own/a.h5"), says=("a.h5", "damaged")),
    Hostile("ten million blocks", _weights(_spec(num_blocks=10**7)), SHOW, says=("num_blocks", "10000000")),
    Hostile("scale 0", _weights(_spec(scale=0)), SHOW, says=("scale is 0",)),
    Hostile("scale of text", _weights(_spec(scale="5")), SHOW, says=("scale is '5'",)),
    Hostile("features without end", _weights(_spec(features=1 << 40)), SHOW, says=("features",)),
    Hostile("metadata nested deeply", _nested, SHOW, says=("w.safetensors", "nested")),
    Hostile("zip bomb as weights", _bomb_pt, ("convert", "own/p.pt", "o.safetensors"), says=("p.pt", "unpack")),
    Hostile(
        "zip bomb as elevation",
        _bomb_npz,
        ("predict", "demo-dem", "own/a.npz", "o.npz", "--backend", "torch"),
        says=("a.npz", "unpack"),
    ),
    Hostile("array that lies about its shape", _lying_npz, ("info", "own/a.npz"), says=("a.npz", "shape")),
    Hostile(
        "broken classic netcdf",
        _classic,
        ("predict", "demo-dem", "own/a.nc", "o.tif", *PREDICT),
        says=("a.nc", "NetCDF"),
    ),
    Hostile(
        "texts in a card",
        _weights(_texts),
        (*SHOW, "--card", "card.md"),
        code=0,
        never=("\x1b", "\x07", "<script>", "](javascript:"),
    ),
)


def judged(case: Hostile, folder: Path, code: int, text: str) -> str | None:
    """Say what is wrong with how a case ended beyond what is wrong for all, or None."""
    if code != case.code:
        return f"exit {code}, expected {case.code}: {text.strip()[:300]}"
    absent = [part for part in case.says if part not in text]
    if absent:
        return f"does not say {absent[0]!r}: {text.strip()[:300]}"
    written = "".join(path.read_text("utf-8", "replace") for path in folder.glob("*.md"))
    held = [part for part in case.never if part in written or (part < " " and part in text)]
    return f"shows {held[0]!r} of the file" if held else None


def run(minutes: float, seed: int, only: str | None = None) -> Tally:
    """Try every case once, whatever the minutes; nothing is drawn by chance."""
    warm()
    tally, end = Tally("hostile"), time.monotonic() + 60 * max(minutes, 1)
    for case in CASES:
        if (only is not None and not case.name.startswith(only)) or time.monotonic() > end:
            continue
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root)
            made = in_child(lambda case=case, folder=folder: case.make(folder) or 0, seconds=120, memory=None)
            if made.code:
                raise SystemExit(f"{case.name}: could not be made:\n{made.error}")
            outcome = earthsr(*case.words, cwd=folder, seconds=120)
            text = outcome.error + outcome.output
            tally.add(case.name, seed, outcome.fault() or judged(case, folder, outcome.code, text))
    return tally
