"""The stages of a run. Each leaves a file that the next one starts from, and does nothing twice."""
