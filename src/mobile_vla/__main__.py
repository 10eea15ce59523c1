"""``python -m mobile_vla``."""

import sys

from mobile_vla.cli.main import main

sys.exit(main())
