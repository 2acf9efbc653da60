"""hqde_ref: a reference HQDE, robust aggregation with proofs, on one machine or a Ray cluster."""

__version__ = "0.1.0"
