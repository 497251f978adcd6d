"""Entry point of ``python -m d2rnet``."""

import sys

from d2rnet.cli.entry import main

sys.exit(main())
