"""Simulated rooms, halls and streets in MuJoCo: RGB and exact depth."""
