"""Who can generate text: drivers, the registry of deployments, dispatch, and the engines that we host."""
