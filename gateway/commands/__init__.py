"""One module per command of the command line; at import they load the standard library only."""
