"""`python -m corten` is `corten`."""

from corten.cli.main import main

raise SystemExit(main())
