"""Scores of what is deployed: every figure comes out of the pipeline."""
