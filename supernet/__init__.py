"""Shared weights: elastic layers, network families, training, extraction."""
