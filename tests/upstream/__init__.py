"""Starts the scripted upstream for tests."""
