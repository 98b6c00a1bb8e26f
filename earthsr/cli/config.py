"""The verb config: validate, show, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from earthsr.cli.options import ConfigFile, Json, Set, show

app = typer.Typer(help="Check and show configurations.", no_args_is_help=True, rich_markup_mode=None)


@app.command("validate")
def validate(
    config: ConfigFile,
    overrides: Set = None,
    data: Annotated[bool, typer.Option("--data", help="Also read the data files that it names, whole.")] = False,
    as_json: Json = False,
) -> None:
    """Check keys, ranges and how they fit together; with --data also against the files."""
    from earthsr.config import load_yaml_config
    from earthsr.tasks import task_for

    loaded = load_yaml_config(config, overrides or ())
    task = task_for(loaded)
    spec = task.spec()
    spec.select(loaded.train.freeze)
    samples = None
    if data:
        datasets = {split: task.dataset(split) for split in ("train", "valid")}
        for dataset in datasets.values():
            dataset.scan()
        samples = {split: len(dataset) for split, dataset in datasets.items()}
    checked = "" if samples is None else f"; data: {samples['train']} train, {samples['valid']} valid samples"
    values = {"valid": True, "config": str(config), "parameters": spec.parameter_count, "samples": samples}
    show(values, as_json, f"{config}: valid, {spec.parameter_count:,} parameters{checked}")


@app.command("show")
def show_config(config: ConfigFile, overrides: Set = None, as_json: Json = False) -> None:
    """Print the resolved configuration, defaults filled in, as YAML or JSON."""
    from earthsr.config import load_yaml_config, to_yaml

    loaded = load_yaml_config(config, overrides or ())
    show(loaded.model_dump(mode="json"), as_json, to_yaml(loaded).rstrip())


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of configurations, for editors and other tools."""
    from earthsr.config import json_schema

    show(json_schema(), True, "")
