"""`python -m belljar`: the command line."""

import sys

from belljar.cli.main import main

sys.exit(main())
