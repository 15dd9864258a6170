"""."""

import cython
