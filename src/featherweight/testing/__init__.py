"""Conformance suites: what every strategy, stopper, transform, criterion, target and store has to
do, for plug-ins as for our own."""

from .criteria import check_criterion
from .stoppers import check_stopper
from .stores import check_store
from .strategies import check_strategy
from .targets import check_target
from .transforms import check_transform

__all__ = ["check_criterion", "check_stopper", "check_store", "check_strategy", "check_target", "check_transform"]
