"""Cheap estimates of latency and quality with their uncertainty."""
