"""What another policy would have done with the requests that were logged: history, donors, replay, comparison."""
