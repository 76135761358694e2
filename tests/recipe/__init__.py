"""How the shipped model was made: pictures and sounds by class are split, composed, prepared, given hints and trained.

`python -m tests.recipe compose` makes clips to train on and clips to test with; `python -m tests.recipe train` runs the
project's own commands on them. Both need the labelled pictures and sounds, which are no part of the repository.
"""
