"""Configuration: one validated object from one YAML file, with MindEarth's five sections and key names.

This room knows the keys that all workloads share; each workload brings its own, and is found through the entry points
``earthsr.tasks``. It knows nothing of data files or frameworks: checks against files are made by the task.
"""

from earthsr.config.load import from_mapping, json_schema, load_yaml_config, to_yaml
from earthsr.config.sections import Config, DataSection, ModelSection, OptimizerSection, SummarySection, TrainSection
from earthsr.config.workloads import Workload, find_workload, installed_workloads, workload_of

__all__ = [
    "Config",
    "DataSection",
    "ModelSection",
    "OptimizerSection",
    "SummarySection",
    "TrainSection",
    "Workload",
    "find_workload",
    "from_mapping",
    "installed_workloads",
    "json_schema",
    "load_yaml_config",
    "to_yaml",
    "workload_of",
]
