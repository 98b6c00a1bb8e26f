"""The verb export: a checkpoint as ONNX or MindIR, for callers without a framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from earthsr.cli.options import Checkpoint, Device, Json, show


def export(
    checkpoint: Checkpoint,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Destination: .onnx or .mindir.")],
    backend: Annotated[
        str | None, typer.Option("--backend", help="Whose exporter: torch or mindspore; else the only one that can.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option("--opset", help="Version of ONNX's operators; the exporter's choice where absent.")
    ] = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model that runs without the framework that trained it: ONNX or MindIR, any batch, height and width.

    Inputs keep their names and stay structured; spec, normalisation, classes and provenance travel inside. Before OUT
    is there it was run on made inputs of two batches and sizes, and compared with the engine that trains. predict,
    evaluate, reconstruct and info take an .onnx file as CHECKPOINT, on onnxruntime alone.
    """
    from earthsr.check.export import export as work

    done = work(checkpoint, target, backend=backend, opset=opset, device=device or "cpu", overwrite=overwrite)
    checked = done["checked"]
    version = "" if done["opset"] is None else f", opset {done['opset']}"
    lines = [
        f"{target}: {done['format']}{version}, {done['bytes'] / 1e6:.3f} MB, {done['parameters']:,} parameters, by "
        f"{done['exporter']}",
        f"takes {', '.join(f'{name} {_shape(shape)}' for name, shape in done['inputs'].items())}; "
        f"gives {done['output']}",
        f"checked on {checked['runtime']} against {checked['engine']}, {len(checked['shapes'])} batches and sizes: "
        f"largest difference {checked['largest_difference']:.2g}, tolerance {checked['tolerance']:.2g}",
        f"tolerance: {checked['reason']}",
    ]
    show(done, as_json, "\n".join(lines))


def _shape(shape: list[int | None]) -> str:
    return f"({', '.join('any' if extent is None else str(extent) for extent in shape)})"
