"""The two small models that ship with the gateway: their graded tasks, training, conversion and weights."""
