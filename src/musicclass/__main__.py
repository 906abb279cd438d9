"""Makes `python -m musicclass` the same as `musicclass`."""

import sys

from musicclass.cli.app import main

sys.exit(main())
