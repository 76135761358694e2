"""`python -m avloc`."""

from avloc.cli import main

main()
