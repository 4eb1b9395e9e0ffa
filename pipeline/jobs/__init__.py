"""Stages of the graph side by side: on this machine's cores and cards, or on a Ray cluster."""
