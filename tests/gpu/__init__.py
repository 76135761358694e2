"""Checks of avloc on a GPU: `python -m tests.gpu`."""
