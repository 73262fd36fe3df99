"""`python -m pow` is `pow-mcp`."""

import sys

from pow.cli.main import main

sys.exit(main())
