"""A model as a graph: tracing, classification, canonization, facts."""
