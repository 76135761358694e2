"""Breaking things on purpose: `python -m tests.faults --help`. A short part is `tests/faults/test_faults.py`."""
