"""Fault injection: `python -m tests.faults --help`. `tests/faults/test_faults.py` runs a short subset."""
