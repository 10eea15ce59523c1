"""What is in a data set and what is wrong with it, in degrees; ``validate`` alone says whether it keeps its layout."""

from mobile_vla.data.inspection.findings import Finding, Grade, Thresholds
from mobile_vla.data.inspection.report import Report, inspect

__all__ = ["Finding", "Grade", "Report", "Thresholds", "inspect"]
