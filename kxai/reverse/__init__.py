"""Runs a plan: forward through the graph, then relevance backward, node by node."""

from kxai.reverse.backward import Backward, Finish, backward
from kxai.reverse.differences import broadcasts, compared, compared_edges
from kxai.reverse.forward import Forward, forward

__all__ = ["Backward", "Finish", "Forward", "backward", "broadcasts", "compared", "compared_edges", "forward"]
