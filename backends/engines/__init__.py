"""Engines that Headgate hosts: recipes, launchers, the supervisor, and the worker processes behind them."""
