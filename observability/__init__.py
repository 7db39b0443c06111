"""Dashboards, rules and configuration for Grafana, Prometheus and the OpenTelemetry collector."""
