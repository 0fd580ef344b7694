"""What a model costs: parameters, MACs, latency and peak memory on a device."""
