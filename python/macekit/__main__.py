# SPDX-License-Identifier: MIT
import sys

from macekit.cli import main

sys.exit(main())
