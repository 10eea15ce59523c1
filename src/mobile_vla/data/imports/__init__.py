"""Data from elsewhere into a data set of ours: LeRobot v3.0, the forerunner's HDF5, ROS 2 bags. Nothing is guessed."""

from mobile_vla.data.imports.mapping import read_mapping
from mobile_vla.data.imports.run import KINDS, ImportReport, import_data, open_source
from mobile_vla.data.imports.template import template

__all__ = ["KINDS", "ImportReport", "import_data", "open_source", "read_mapping", "template"]
