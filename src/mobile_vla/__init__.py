"""Tell a mobile robot in words where to go; it drives there from camera pixels, safely."""

__version__ = "0.1.0"
