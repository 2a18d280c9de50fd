"""Methods that combine results at many points per sample: path and noise methods."""
