"""Measuring artifacts: accuracy with intervals, latency A/B, memory, size,
operations, certificates."""
