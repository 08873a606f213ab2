"""The cost of a model: latency, multiply-adds, memory, loading and training."""
