"""How a request travels: the pipeline, the composition root, the HTTP surface, the commands and the telemetry."""
