"""avloc: where in this picture does the sound come from?"""

__version__ = "0.1.0"
