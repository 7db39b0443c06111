"""What a tenant may do and what it costs: policy files, resolution, prices, keys, limits and the budget ledger."""
