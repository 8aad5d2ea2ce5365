"""The arithmetic of `ladm evaluate`: areas under curves, and the fit of a calibration."""
