"""The VMCS: field encodings and storage."""

import cython
