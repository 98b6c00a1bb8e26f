"""Configuration: one validated object from one YAML file, with MindEarth's five sections and key names.

This room knows nothing of data files or frameworks; checks against files are made by the task.
"""

from earthsr.config.load import from_mapping, load_yaml_config, to_yaml
from earthsr.config.model_sections import DEMNetModel, DemSRNetModel, UNetModel
from earthsr.config.schema import Config, DataSection, OptimizerSection, SummarySection, TrainSection

__all__ = [
    "Config",
    "DEMNetModel",
    "DataSection",
    "DemSRNetModel",
    "OptimizerSection",
    "SummarySection",
    "TrainSection",
    "UNetModel",
    "from_mapping",
    "load_yaml_config",
    "to_yaml",
]
