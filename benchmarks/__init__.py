"""Speed and accuracy of our kernels beside their peers, on the same data, interleaved: ``python -m benchmarks``."""
