"""`python -m pow` is `pow-mcp`."""

import sys

from pow.cli import main

sys.exit(main())
