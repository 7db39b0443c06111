"""What the gateway learns from answers: feedback, comparisons, calibrations, the router's own learning."""
