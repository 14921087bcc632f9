"""Work on a Ray cluster."""

from bnf_align.cluster.cluster import Cluster

__all__ = ["Cluster"]
