"""The typed configuration: YAML and dotted overrides in, a frozen `Config` out."""

from nas.config.compatibility import check_same_supernet
from nas.config.loading import CONFIG_FILE, load_config, validate
from nas.config.model import COSTS, FAMILIES, QUALITIES, Config
from nas.config.sections import (
    AugmentConfig,
    ClusterConfig,
    DecoderSpaceConfig,
    ImageTaskConfig,
    LanguageTaskConfig,
    LatencyConfig,
    SearchConfig,
    TrainingConfig,
    VisionSpaceConfig,
    WorkloadConfig,
)

__all__ = [
    "CONFIG_FILE",
    "COSTS",
    "FAMILIES",
    "QUALITIES",
    "AugmentConfig",
    "ClusterConfig",
    "Config",
    "DecoderSpaceConfig",
    "ImageTaskConfig",
    "LanguageTaskConfig",
    "LatencyConfig",
    "SearchConfig",
    "TrainingConfig",
    "VisionSpaceConfig",
    "WorkloadConfig",
    "check_same_supernet",
    "load_config",
    "validate",
]
