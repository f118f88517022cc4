"""The dashboard: all runs below some folders in one page, to choose subnets from."""

from reports.dashboard.catalogue import Catalogue
from reports.dashboard.server import DashboardServer

__all__ = ["Catalogue", "DashboardServer"]
