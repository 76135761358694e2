"""Breaking things on purpose: `python -m tests.faults --help`. A short part is `tests/test_faults.py`."""
