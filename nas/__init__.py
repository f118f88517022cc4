"""The pipeline: typed configuration, run directory and store, tasks, search, stages."""
