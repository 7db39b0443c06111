"""What the operator chose: `headgate.yaml`, parsed into valid values."""
