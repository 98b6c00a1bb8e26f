"""The command line: exit code 0 done, 1 the work failed, 2 the arguments, configuration or input are wrong.

No verb imports a framework or the library before it runs, so that ``--help`` answers at once.
"""

from earthsr.cli.main import main

__all__ = ["main"]
