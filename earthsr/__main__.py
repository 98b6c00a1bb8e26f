"""``python -m earthsr``."""

import sys

from earthsr.cli import main

sys.exit(main())
