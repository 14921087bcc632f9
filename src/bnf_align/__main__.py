"""`python -m bnf_align` and `accelerate launch -m bnf_align` are the command `bnf-align`."""

import sys

from bnf_align.cli.main import main

sys.exit(main())
