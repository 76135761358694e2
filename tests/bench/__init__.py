"""Benchmarks, run manually: `python -m tests.bench`. No test measures time."""
