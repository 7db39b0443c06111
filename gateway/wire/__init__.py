"""How requests and answers look on the wire: HTTP routes, dialects, headers, frames, errors."""
