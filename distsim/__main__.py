"""``python -m distsim``."""

import sys

from distsim.cli.main import main

sys.exit(main())
