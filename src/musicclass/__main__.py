"""`python -m musicclass` is `musicclass`."""

import sys

from musicclass.cli import main

sys.exit(main())
