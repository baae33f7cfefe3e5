"""``python -m memory_integrations.cli``."""

import sys

from memory_integrations.cli import main

if __name__ == "__main__":
    sys.exit(main())
