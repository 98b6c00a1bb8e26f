"""``python -m earthsr.cli``."""

import sys

from earthsr.cli.main import main

sys.exit(main())
