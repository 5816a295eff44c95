"""``python -m masa_ros``, the same as the command ``masa_ros``."""

import sys

from masa_ros.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
