"""Conformance suites: what every strategy has to do, for plug-ins as for our own."""

from .strategies import check_strategy

__all__ = ["check_strategy"]
