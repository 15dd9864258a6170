"""From a file to the contents of guest memory: one loader a format, told apart by content, never by name."""

from belljar.boot.image import Image, ImageSegment, SegmentFlags
from belljar.boot.loaders import FORMATS, load, load_bytes

__all__ = ["FORMATS", "Image", "ImageSegment", "SegmentFlags", "load", "load_bytes"]
